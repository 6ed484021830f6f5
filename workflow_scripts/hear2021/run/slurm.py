"""What SLURM is asked, and what it answers."""

import getpass
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

OUT_OF_SERVICE = ("down", "drain", "fail", "maint", "unknown")
SECONDS_TO_ANSWER = 120
SECONDS_TO_END = 120


class SlurmError(RuntimeError):
    """A cluster that a run cannot go to, or settings that are not its, and what to do about it."""


def ask(*command: str) -> str:
    """Return what a command of SLURM prints.

    Raises:
        SlurmError: as `run`, and if the command fails.
    """
    result = run(*command)
    if result.returncode:
        raise SlurmError(f"`{shlex.join(command)}` failed: {result.stderr.strip()}")
    return result.stdout


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM to its end, good or not.

    Raises:
        SlurmError: if there is no such command or it does not answer.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False
        )
    except FileNotFoundError as error:
        raise SlurmError(
            f"There is no {command[0]} here. Start on a login node of the cluster, or without "
            f"--profile slurm for this machine alone."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"`{shlex.join(command)}` does not answer. Is SLURM up?") from error


@dataclass(frozen=True)
class Partition:
    """What sinfo says of a partition."""

    available: bool
    minutes: float
    gpus: frozenset[str]  # types; "" where the type is not named
    complete: bool  # no node is drained or down


def partitions() -> dict[str, Partition]:
    """Return the partitions of the cluster by name."""
    found: dict[str, Partition] = {}
    for line in ask("sinfo", "-h", "-o", "%R|%a|%l|%T|%G").splitlines():
        name, available, limit, state, gres = line.split("|", 4)
        # gpu:4, gpu:a100:4 or gpu:2080ti:4(S:0-1): a number at the end is how many.
        types = re.findall(r"(?:^|,)gpu(?::(?!\d+(?:[(,]|$))([^:(,]+))?(?=[:(,]|$)", gres)
        known = found.get(name)
        found[name] = Partition(
            available == "up",
            _minutes(limit),
            frozenset(types) | (known.gpus if known else set()),
            not state.startswith(OUT_OF_SERVICE) and (known is None or known.complete),
        )
    return found


def _minutes(limit: str) -> float:
    """Return the minutes of SLURM's [days-]hours:minutes:seconds."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


def accounts() -> set[str]:
    """Return the accounts of this user, nothing where they cannot be known."""
    for command in (
        ["sacctmgr", "-n", "-s", "list", "user", getpass.getuser(), "format=account%256"],
        ["sshare", "-U", "--format", "Account%256", "--noheader"],
    ):
        try:
            found = {name.strip().lower() for name in ask(*command).split()}
        except SlurmError:
            continue
        if found:
            return found
    return set()


def cancel_leftovers(prefix: str, folder: Path) -> list[str]:
    """Cancel the jobs of a run in `folder` whose main process died, and wait for their end.

    Its jobs cannot be taken over, and two writers of one file must not be.

    Args:
        prefix: what the names of this workflow's jobs begin with.
        folder: the working directory.

    Returns:
        The ids of the cancelled jobs.

    Raises:
        SlurmError: if they do not end.
    """
    leftovers = _jobs_of(prefix, folder)
    if leftovers:
        ask("scancel", *leftovers)
        deadline = time.monotonic() + SECONDS_TO_END
        while set(leftovers) & set(_jobs_of(prefix, folder)):
            if time.monotonic() > deadline:
                raise SlurmError(
                    f"The jobs {', '.join(leftovers)} of an earlier run do not end {SECONDS_TO_END}"
                    f" s after scancel. Wait until squeue no longer lists them, then start again."
                )
            time.sleep(2)
    return leftovers


def running_jobs(prefix: str, folder: Path) -> int | None:
    """Return how many of the workflow's jobs in `folder` run, not counting those in the queue.

    None while SLURM does not answer: only a progress line wants to know, and an error would end
    the run and its jobs.
    """
    try:
        return len(_jobs_of(prefix, folder, "RUNNING"))
    except SlurmError:
        return None


def _jobs_of(prefix: str, folder: Path, states: str = "PENDING,RUNNING,COMPLETING") -> list[str]:
    user = getpass.getuser()
    lines = ask("squeue", "-h", "-u", user, "-t", states, "-o", "%i|%j|%Z").splitlines()
    jobs = (line.split("|", 2) for line in lines)
    return [
        number
        for number, name, working_directory in jobs
        if name.startswith(f"{prefix}_") and Path(working_directory).resolve() == folder.resolve()
    ]
