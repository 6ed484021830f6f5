"""How a rule's script is run: its function's arguments as options, its output in the job's log."""

import argparse
import contextlib
import errno
import gc
import inspect
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints


def command_line(function: Callable[..., object]) -> None:
    """Run `function` with arguments from the command line, all output going to `--log`.

    An argument `sample_rate: int` is the option `--sample-rate`; a `list[Path]` takes several
    values, and a `Path | None` may be left out. When the function raises, the traceback stands in
    the log, with the error in one line below it, and one line on the console says what was wrong
    and where the log is; the exit status is then 1. A `sys.exit` of what it calls is such an error.
    What is said after that, as the interpreter ends, goes to the console: the log's last line is
    the reason.
    """
    gc.freeze()  # what was imported stays
    gc.enable()
    signal.signal(signal.SIGTERM, _end)
    arguments = vars(_parser(function).parse_args())
    log: Path = arguments.pop("log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.dup(2), "w") as console, log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
        try:
            function(**arguments)
        except _Ended as ended:
            sys.stdout.flush()
            print("ended by SIGTERM: cancelled, or out of time", file=sys.stderr)
            sys.exit(ended.status)
        except (Exception, SystemExit) as error:
            said = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else str(error)
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                paths = [path for path in arguments.values() if isinstance(path, Path)]
                said += _fullest_disk([log, *paths])
            print(f"{function.__name__}: {said}\n    log: {log}", file=console, flush=True)
            with contextlib.suppress(OSError):  # of a disk that has no room for the log either
                sys.stdout.flush()
                traceback.print_exc()
                print(f"{type(error).__name__}: {' '.join(said.split())}", file=sys.stderr)
            for descriptor in (1, 2):
                os.dup2(console.fileno(), descriptor)
            sys.exit(1)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fullest_disk(paths: Iterable[Path]) -> str:
    """Say which of the files' disks has the least room, for the error of a write may not."""
    folders = {path.absolute().parent for path in paths}
    free = {folder: shutil.disk_usage(folder).free for folder in folders if folder.exists()}
    fullest = min(free, key=lambda folder: free[folder])
    return (
        f". {fullest} has {free[fullest] / 1e6:.0f} MB left: make room there (or raise the quota) "
        f"and start again; what is finished is kept"
    )


class _Ended(BaseException):
    """The end that a signal asked for.

    No SystemExit, which `function` may take for one of a program that it runs.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _end(number: int, frame: object) -> NoReturn:
    """End as by an error, so that what is to be cleaned up is: SLURM's warning, a cancelled job."""
    raise _Ended(128 + number)


def _parser(function: Callable[..., object]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(function), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            required=required,
            default=None if required else parameter.default,
            **_reading(hints[name]),
        )
    parser.add_argument("--log", type=Path, required=True, help="the file for all output")
    return parser


def _reading(hint: Any) -> dict[str, Any]:
    """Return how argparse reads a value of type `hint`."""
    if get_origin(hint) is list:
        return {"nargs": "*", "type": get_args(hint)[0]}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is UnionType:
        (hint,) = {*get_args(hint)} - {NoneType}
    return {"type": hint}
