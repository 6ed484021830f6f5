"""What the tests share: where the inputs that are not in the repository lie."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

# Tests run side by side (pyproject.toml). Together they must not ask for more cores than there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HEAR_SHARED", REPOSITORY.parent / "shared"))

needs_shared = pytest.mark.skipif(
    not (SHARED / "golden").is_dir(),
    reason=f"the golden embeddings and real input are not at {SHARED.name}/ (set HEAR_SHARED)",
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread, whatever the tests before have set."""
    import torch  # noqa: PLC0415 -- which most tests of the workflow do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def blocks_worthwhile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small layers as worthwhile to multiply in blocks, and blocks as the faster way."""
    from workflow_scripts.hear2021.evaluation import products  # noqa: PLC0415 -- imports torch

    seconds = itertools.count()  # of two ways: the one tried first takes less
    monkeypatch.setattr(products, "_seconds", lambda work: next(seconds))
    monkeypatch.setattr(products, "MULTIPLY_ADDS_WORTHWHILE", 0)
    products.faster_in_blocks.cache_clear()
    yield
    products.faster_in_blocks.cache_clear()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the golden embeddings and the real input."""
    return SHARED


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


WORKFLOW = ["Snakefile", "rules", "envs", "config", "workflow_scripts", "hear_mn", "slurm"]


def copy_workflow(target: Path) -> Path:
    """Copy the workflow without its results, so that a test can run it and change it."""
    target.mkdir(parents=True, exist_ok=True)
    for name in WORKFLOW:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source,
                target / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "site.yaml"),
            )
        else:
            shutil.copy(source, target / name)
    return target


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy of the workflow; its exit status is the caller's to check."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )


def planned_jobs(folder: Path, *arguments: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run plans."""
    result = snakemake(folder, "-n", "-j2", *arguments)
    assert result.returncode == 0, result.stdout
    stats = re.search(r"^job +count\n-+ +-+\n(.*?)^total", result.stdout, re.MULTILINE | re.DOTALL)
    rows = stats[1].split("\n") if stats else []
    return {name: int(count) for name, count in (row.split() for row in rows if row)}


@pytest.fixture(scope="session")
def mini(tmp_path_factory) -> Path:
    """A fresh copy of the workflow after `snakemake -j4`; one for all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    shared_by_all = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, finished = shared_by_all / "mini", shared_by_all / "mini-finished"
    with FileLock(shared_by_all / "mini.lock"):
        if not finished.exists():
            result = snakemake(copy_workflow(folder), "-j4")
            assert result.returncode == 0, result.stdout
            finished.touch()
    return folder


SITE_SETTINGS = {
    "account": "speech",
    "cpu_partition": "cpu",
    "gpu_partition": "gpu",
    "gpu_model": "a100",
    "gres": None,
    "max_minutes": 1440,
}
SINFO = """\
cpu|up|2-00:00:00|idle|(null)
gpu|up|1-00:00:00|mixed|gpu:a100:4(S:0-1)
gpu|up|1-00:00:00|{state}|gpu:v100:2,tmpfs:100
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands of a cluster that answer what a test wants them to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def answer(command: str, output: str = "", status: int = 0) -> None:
        program = folder / command
        program.write_text(f"#!/bin/sh\ncat <<'ANSWER'\n{output.strip()}\nANSWER\nexit {status}\n")
        program.chmod(0o755)

    answer("sinfo", SINFO.format(state="allocated"))
    answer("sacctmgr", "speech\nmusic")
    answer("sshare", status=1)
    answer("sbatch")
    answer("squeue")  # which the executor plugin looks for when it is imported
    return answer
