"""Which Python runs the rules' scripts."""

import os
import sys
from pathlib import Path


def prefer_this_python() -> None:
    """Make `python` in a rule the one that runs Snakemake, its environment activated or not.

    `--sdm conda` puts an environment's own before it.
    """
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    os.environ["PATH"] = os.pathsep.join(folders)
