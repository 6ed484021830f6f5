"""The scratch folder, which is one clone's: Snakemake keeps in the clone what its files are of."""

from pathlib import Path

from hear_mn.whole import write_whole
from workflow_scripts.hear2021.run.config_tables import ConfigurationError

OWNER = "clone.txt"


def take(scratch: Path, clone: Path) -> None:
    """Make a scratch folder outside the clone known as this clone's.

    Raises:
        ConfigurationError: if it is another's, whose embeddings this one would take as its own,
            with whatever weights, precision or data they were made.
    """
    owner = scratch / OWNER
    if not owner.exists():
        if not scratch.resolve().is_relative_to(clone):
            write_whole(owner, f"{clone}\n".encode())
        return
    named = owner.read_text().strip()
    if named != str(clone):
        raise ConfigurationError(
            f"pathvars.scratch: {scratch} is the scratch folder of the clone {named}, and two "
            f"clones do not see each other's settings. Name another folder. If that is this clone, "
            f"moved, or is gone and its run files had the same settings, delete {owner}"
        )
