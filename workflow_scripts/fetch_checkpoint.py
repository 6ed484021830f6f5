"""Rule fetch_checkpoint: a checkpoint's weights, found, made or fetched."""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from hear_mn.checkpoints import Checkpoint, CheckpointError, locate
from hear_mn.checkpoints import checkpoint as checkpoint_row
from hear_mn.download import file_hashes
from hear_mn.whole import write_json_whole
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.run.fingerprints import module_fingerprint


def fetch_checkpoint(checkpoint: str, local: str, output: Path) -> None:
    """Find a checkpoint's weights, or fetch them into the cache (HEAR_MN_CACHE).

    Args:
        checkpoint: a row of config/checkpoints.csv.
        local: a weights file to take; empty for the published one.
        output: the .json to write: path, size and sha256 of the weights; none where a module that
            is not ours finds its own. Of such a module also its version and a hash of its code.
    """
    row = checkpoint_row(checkpoint)
    if row.module and not local:
        found: dict[str, Any] = {"path": None, "size": None, "sha256": None}
    else:
        found = _described(Path(local) if local else locate(checkpoint))
    if row.module:
        found |= _importable(row)
    write_json_whole(output, {"checkpoint": checkpoint, **found})


def _described(weights: Path) -> dict[str, Any]:
    if not weights.is_file():
        raise CheckpointError(f"no such weights file: {weights}; correct `weights` in the config")
    return {
        "path": str(weights),  # as it is given: a file in the clone is there when the clone moves
        "size": weights.stat().st_size,
        **file_hashes(weights, {"sha256"}),
    }


def _importable(row: Checkpoint) -> dict[str, str | None]:
    """Return a module's name, the version of its package if it has one, and a hash of its code."""
    module = str(row.module)
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise CheckpointError(
                f"{row.checkpoint}: its module {module} needs {error.name}, which is not installed "
                f"in the environment of the workflow"
            ) from error
        spec = None
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"{row.checkpoint} is the module {module}, which is not here; install its package in "
            f"the environment of the workflow, or put its file beside the Snakefile"
        )
    packages = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    return {
        "module": module,
        "version": importlib.metadata.version(packages[0]) if packages else None,
        "code": module_fingerprint(module),
    }


if __name__ == "__main__":
    command_line(fetch_checkpoint)
