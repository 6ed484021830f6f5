"""The machine that is measured on: what it is, what it can do, and processes of their own."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from hear_mn.mobilenet import onednn_linear
from tests.benchmarks.comparison import timed

PRODUCT_SIZE = 2048
DISK_BYTES = 1 << 30


def describe() -> str:
    """Return a line that says which machine this is and how busy it was."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{names[0] if names else platform.machine()}, {cores} cores, "
        f"{torch.get_num_threads()} torch threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def matrix_product_rate(repetitions: int = 7) -> float:
    """Return the multiply-adds a second of float32 matrix products with torch's threads.

    By the faster of torch's two libraries: MKL, and oneDNN, which has wider kernels on some CPUs.
    """
    a, b = torch.randn(2, PRODUCT_SIZE, PRODUCT_SIZE)
    seconds = []
    for product in (lambda: torch.mm(a, b), lambda: onednn_linear(a, b, None)):
        product()
        seconds.append(statistics.median(timed(product) for _ in range(repetitions)))
    return PRODUCT_SIZE**3 / min(seconds)


@dataclass(frozen=True)
class DiskRates:
    """Bytes a second to and from the disk that a folder is on."""

    write: float
    read: float


def disk_rates(folder: Path) -> DiskRates:
    """Write a file under `folder` to the disk, and read it when no cache holds it."""
    file = folder / "disk_rate"
    block = os.urandom(8 << 20)
    started = time.perf_counter()
    with file.open("wb", buffering=0) as written:
        for _ in range(DISK_BYTES // len(block)):
            written.write(block)
        os.fdatasync(written.fileno())
        writing = time.perf_counter() - started
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    with file.open("rb", buffering=0) as read:
        while read.read(len(block)):
            pass
    reading = time.perf_counter() - started
    file.unlink()
    return DiskRates(DISK_BYTES / writing, DISK_BYTES / reading)


def apart(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Call a function in a process of its own, whose imports are done.

    Returns:
        What it returns, and how many bytes the process had more at its peak than before the call.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.scaling"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_called, torch.get_num_threads(), function, *arguments).result()


def _called(threads: int, function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    torch.set_num_threads(threads)
    before = _memory("VmRSS")
    result = function(*arguments)
    return result, _memory("VmHWM") - before


def _memory(key: str) -> int:
    """Return a value of /proc/self/status in bytes; ru_maxrss would include the parent's peak."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith(key))
    return int(kilobytes) * 1024
