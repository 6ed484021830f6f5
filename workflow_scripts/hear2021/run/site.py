"""The cluster a run goes to: its settings, and whether SLURM agrees with them.

python -m workflow_scripts.hear2021.run.site    checks slurm/site.yaml

A run on SLURM checks before its first submission, so that a wrong account is one message and not
one failed job a pair.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.hear2021.run import slurm
from workflow_scripts.hear2021.run.config_tables import ConfigurationError, check

SETTINGS = Path("slurm/site.yaml")
EXAMPLE = Path("slurm/site.example.yaml")
# The executor asks for the state of its jobs at most this many seconds apart.
LONGEST_STATUS_INTERVAL = 180


@dataclass(frozen=True)
class Site:
    """The settings of slurm/site.yaml; without that file, those of a machine without SLURM."""

    account: str | None = None
    cpu_partition: str | None = None
    gpu_partition: str | None = None
    gpu_model: str | None = None
    gres: str | None = None
    max_minutes: int | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_constraint: str | None = None
    slurm_extra: str | None = None
    node_local: str | None = None
    cache: str | None = None

    def time_limit(self, minutes: int, members: int = 1) -> int:
        """Return `minutes` cut so that `members` of a job in turn stay within what can be asked."""
        return min(minutes, self.max_minutes // members) if self.max_minutes else minutes

    @property
    def cpu_job(self) -> dict[str, str | int]:
        """The resources, in Snakemake's names, that a job without a GPU asks of this site."""
        return self._job(self.cpu_partition, self.constraint)

    @property
    def gpu_job(self) -> dict[str, str | int]:
        """The resources of a job on one GPU, which `gpu_jobs` counts for the profile's limit."""
        gpu: dict[str, str | int] = {"gres": self.gres} if self.gres else {"gpu": 1}
        if self.gpu_model:
            gpu["gpu_model"] = self.gpu_model
        where = {"node_local": self.node_local or ""}
        return (
            {"gpu_jobs": 1} | gpu | where | self._job(self.gpu_partition, self.constraint_of_gpus)
        )

    @property
    def constraint_of_gpus(self) -> str | None:
        """What jobs on a GPU ask of their node."""
        return self.gpu_constraint or self.constraint

    def _job(self, partition: str | None, constraint: str | None) -> dict[str, str | int]:
        settings = {
            "slurm_account": self.account,
            "slurm_partition": partition,
            "qos": self.qos,
            "constraint": constraint,
            "slurm_extra": self.slurm_extra,
            "tmpdir": self.node_local,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def set_caches(self) -> None:
        """Point the caches of this process and of its jobs to the site's folder."""
        if self.cache:
            os.environ["XDG_CACHE_HOME"] = self.cache
            os.environ["HEAR_MN_CACHE"] = f"{self.cache}/hear_mn"


@dataclass(frozen=True)
class Request:
    """What a job asks for, or the largest job of a rule; None is what is not known yet."""

    rule: str
    gpu: bool
    cpus: int
    memory_mb: int | None
    minutes: int | None


def largest_requests(requests: Iterable[Request]) -> list[Request]:
    """Return one request a rule, which asks for the most that any of its jobs asks for."""
    largest: dict[str, Request] = {}
    for request in requests:
        known = largest.get(request.rule, request)
        largest[request.rule] = Request(
            request.rule,
            request.gpu,
            max(known.cpus, request.cpus),
            _largest(known.memory_mb, request.memory_mb),
            _largest(known.minutes, request.minutes),
        )
    return list(largest.values())


def _largest(*numbers: int | None) -> int | None:
    return max((number for number in numbers if number is not None), default=None)


def read_site(settings: Mapping[str, Any]) -> Site:
    """Check the settings and return them; none at all are those of a machine without SLURM.

    Raises:
        ConfigurationError: naming the key, the value and what is allowed.
    """
    if not settings:
        return Site()
    check(dict(settings), "site", f"{SETTINGS} (its key `site`)")
    return Site(**settings)


def check_site(site: Site, requests: Iterable[Request] = ()) -> list[str]:
    """Compare the settings with what SLURM says; submit nothing.

    Args:
        site: the settings.
        requests: jobs that SLURM is asked about (sbatch --test-only).

    Returns:
        Lines that say what was found, for people.

    Raises:
        slurm.SlurmError: one message with everything that is wrong.
    """
    if site.cpu_partition is None or site.gpu_partition is None:
        raise slurm.SlurmError(
            f"{SETTINGS} is missing, which names your cluster's account and partitions:\n"
            f"    cp {EXAMPLE} {SETTINGS}\nand change what is wrong for you. Nothing was submitted."
        )
    partitions = slurm.partitions()
    accounts = slurm.accounts()
    wrong = [
        *_wrong_partitions(site, partitions),
        *_wrong_account(site, accounts),
        *_wrong_extra(site),
    ]
    if not wrong:
        wrong = [
            problem for request in requests if (problem := _refused(site, request, partitions))
        ]
    if wrong:
        raise slurm.SlurmError(
            "\n".join([f"{SETTINGS} does not fit this cluster. Nothing was submitted.", *wrong])
        )
    gpu = site.gres or site.gpu_model or "any model"
    return [
        f"jobs on a GPU: partition {site.gpu_partition}, {gpu}",
        f"other jobs: partition {site.cpu_partition}",
        f"account: {site.account or 'your default'}"
        + ("" if accounts else " (this cluster's accounts cannot be asked for)"),
    ]


def check_status_queries(command: str | None, first_check_seconds: int) -> None:
    """Refuse settings with which the executor would wait for ever for a job that has ended.

    It asks squeue, which forgets a job MinJobAge seconds after its end, or sacct, which needs an
    accounting database.

    Args:
        command: the executor's status command.
        first_check_seconds: the seconds before its first check. With three times more than
            MinJobAge it turns from squeue to sacct.

    Raises:
        slurm.SlurmError: with the option that helps.
    """
    answer = slurm.ask("scontrol", "show", "config")
    settings = dict(re.findall(r"^(\w+)\s*= *(.*?) *$", answer, re.MULTILINE))
    accounting = settings.get("AccountingStorageType", "") != "accounting_storage/none"
    age = re.match(r"\d+", settings.get("MinJobAge", ""))
    kept = int(age[0]) if age else 0
    squeue_serves = kept > LONGEST_STATUS_INTERVAL + 10
    asks_sacct = command != "squeue" or kept < 3 * first_check_seconds
    learns_of_ends = accounting if asks_sacct else squeue_serves
    if learns_of_ends:
        return
    if accounting:
        raise slurm.SlurmError(
            f"This cluster's squeue forgets a job {kept} s after its end (MinJobAge), which is "
            f"sooner than the next check may come. Ask the accounting database instead:\n"
            f"    snakemake --profile slurm --slurm-status-command sacct\n"
            f"Nothing was submitted."
        )
    if squeue_serves:
        soon = min(first_check_seconds, kept // 3)
        raise slurm.SlurmError(
            f"This cluster has no accounting database (AccountingStorageType), and these settings "
            f"ask it. Its squeue keeps a job for {kept} s (MinJobAge), which is enough with\n"
            f"    snakemake --profile slurm --slurm-status-command squeue "
            f"--slurm-init-seconds-before-status-checks {soon}\n"
            f"Nothing was submitted."
        )
    raise slurm.SlurmError(
        f"This cluster has no accounting database (AccountingStorageType) and its squeue forgets "
        f"a job {kept} s after its end (MinJobAge), so a run here would wait for ever. Ask the "
        f"administrators for MinJobAge=300, SLURM's default. Nothing was submitted."
    )


def _wrong_partitions(site: Site, partitions: Mapping[str, slurm.Partition]) -> Iterable[str]:
    for key in ("cpu_partition", "gpu_partition"):
        name = str(getattr(site, key))
        if name not in partitions:
            yield f"  {key}: SLURM has no partition {name!r}. It has: {', '.join(partitions)}"
            continue
        if not partitions[name].available:
            yield f"  {key}: the partition {name!r} is down"
        if site.max_minutes and site.max_minutes > partitions[name].minutes:
            yield (
                f"  max_minutes: {site.max_minutes}, and the partition {name!r} takes jobs of at "
                f"most {partitions[name].minutes:.0f} minutes"
            )
    gpu = partitions.get(str(site.gpu_partition))
    if gpu is None:
        return
    if not gpu.gpus:
        others = [name for name, partition in partitions.items() if partition.gpus]
        yield (
            f"  gpu_partition: {site.gpu_partition!r} has no GPU. "
            f"Partitions that do: {', '.join(others) or 'none'}"
        )
        return
    key = "gres" if site.gres else "gpu_model"
    model = site.gres.split(":")[1] if site.gres and site.gres.count(":") == 2 else site.gpu_model
    if model and model not in gpu.gpus:
        named = sorted(gpu.gpus - {""})
        yield (
            f"  {key}: the partition {site.gpu_partition!r} has no GPU of type {model!r}. It has: "
            f"{', '.join(named) or 'GPUs without a type, so leave the type out'}"
        )


def _wrong_account(site: Site, accounts: set[str]) -> Iterable[str]:
    if site.account and accounts and site.account.lower() not in accounts:
        yield f"  account: {site.account!r} is not yours. Yours: {', '.join(sorted(accounts))}"


def _wrong_extra(site: Site) -> Iterable[str]:
    # Of the executor, which refuses them at each submission; its import takes a second.
    from snakemake_executor_plugin_slurm.validation import (  # noqa: PLC0415
        get_forbidden_slurm_options,
    )

    for option, name in get_forbidden_slurm_options().items():
        if re.search(option, site.slurm_extra or ""):
            yield (
                f"  slurm_extra: {site.slurm_extra!r} sets the {name}, which each job asks for "
                "itself (qos, constraint, account and partitions have keys of their own)"
            )


def _refused(site: Site, request: Request, partitions: Mapping[str, slurm.Partition]) -> str | None:
    partition = str(site.gpu_partition if request.gpu else site.cpu_partition)
    command = [
        "sbatch",
        "--test-only",
        f"--partition={partition}",
        f"--cpus-per-task={request.cpus}",
    ]
    if request.memory_mb is not None:
        command.append(f"--mem={request.memory_mb}")
    if request.minutes is not None:
        command.append(f"--time={request.minutes}")
    if request.gpu:
        model = f"{site.gpu_model}:" if site.gpu_model else ""
        command.append(f"--gres={site.gres}" if site.gres else f"--gpus={model}1")
    for option, value in (
        ("account", site.account),
        ("qos", site.qos),
        ("constraint", site.constraint_of_gpus if request.gpu else site.constraint),
    ):
        if value:
            command.append(f"--{option}={value}")
    command += [*shlex.split(site.slurm_extra or ""), "--wrap=true"]
    result = slurm.run(*command)
    if result.returncode == 0:
        return None
    # --test-only leaves drained nodes out; a job waits for them.
    if "node configuration" in result.stderr and not partitions[partition].complete:
        return None
    return f"  jobs of rule {request.rule}: {shlex.join(command)}\n    {result.stderr.strip()}"


def main() -> None:
    """Check slurm/site.yaml and say what was found."""
    try:
        content = yaml.safe_load(SETTINGS.read_text()) if SETTINGS.exists() else None
        site = read_site((content or {}).get("site", {}))
        print("\n".join(check_site(site)))
    except (ConfigurationError, slurm.SlurmError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
