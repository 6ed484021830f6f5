"""One process at a time writes a file that takes long to make."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_writer(target: Path, error: type[Exception]) -> Iterator[None]:
    """Be the only process that writes `target` while the block runs.

    Args:
        target: the file; its folder is made.
        error: what is raised if another process is at it, with what to do.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path, timeout=0))
        except Timeout as timeout:
            raise error(
                f"another process is writing {target}: a job of an earlier run that is still "
                f"going? Cancel it (squeue, scancel; kill), then start again: a pass goes on "
                f"where it was cancelled, while Snakemake deletes what it ends with, as "
                f"incomplete. If there is none (a node that crashed), delete {path}"
            ) from timeout
        yield
        path.unlink(missing_ok=True)  # while it is held: released, it may be another's
