"""What a job holds of its machine: a GPU that no other job has, or the CPU; and its memory."""

import ctypes
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

DRIVER = Path("/proc/driver/nvidia/version")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT_BYTES = 1 << 30
MOST_OF_OLDER_GLIBC = 32 << 20  # that it takes as the second of these


class DeviceError(RuntimeError):
    """A GPU that is there and cannot be used, and what to do about it."""


@contextmanager
def claimed_device() -> Iterator[torch.device]:
    """Hold one GPU while the block runs, waiting for a free one; the CPU where there is none.

    Snakemake does not say which GPU a local job may use. A lock per GPU does, and it is released
    when its holder dies. Under SLURM a job sees its own GPU only.

    Raises:
        DeviceError: if there is a GPU that torch cannot use.
    """
    if not torch.cuda.is_available():
        _refuse_an_unused_gpu()
        yield torch.device("cpu")
        return
    # One user's locks: nobody else can take them over, in a folder that all users share.
    locks = [
        FileLock(Path(tempfile.gettempdir(), f"hear-mn-{os.getuid()}-{properties.uuid}.lock"))
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    index = _first_free(locks)
    try:
        _refuse_an_old_gpu(index)
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)
    finally:
        locks[index].release()


def _first_free(locks: Sequence[FileLock]) -> int:
    """Wait until one of the locks can be taken, take it and return its index."""
    while True:
        for index, lock in enumerate(locks):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return index
        time.sleep(1)


def _refuse_an_unused_gpu() -> None:
    """Raise if this machine's GPU would stand idle while its job runs on the CPU for days."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not DRIVER.exists():
        return
    version = DRIVER.read_text().splitlines()[0]
    raise DeviceError(
        f"{socket.gethostname()} has an NVIDIA driver ({version}) and torch {torch.__version__} "
        f"sees no GPU: the driver is older than CUDA {torch.version.cuda} needs, or SLURM gave "
        "this job no GPU (slurm/site.yaml). To run on the CPU, set CUDA_VISIBLE_DEVICES=-1"
    )


def _refuse_an_old_gpu(index: int) -> None:
    major, minor = torch.cuda.get_device_capability(index)
    compiled = [name for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    oldest = min(int(name.removeprefix("sm_").rstrip("af")) for name in compiled)
    if 10 * major + minor < oldest:
        raise DeviceError(
            f"{torch.cuda.get_device_name(index)} on {socket.gethostname()} has compute "
            f"capability {major}.{minor}, and torch {torch.__version__} needs "
            f"{oldest // 10}.{oldest % 10}: ask for another gpu_model in slurm/site.yaml, or run "
            "on the CPU with CUDA_VISIBLE_DEVICES=-1"
        )


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, instead of giving it back to the system.

    A batch frees tens of megabytes that the next one asks for again. By default glibc gives them
    back in between, and each page comes anew and zeroed: a fifth of a pass over 10 s clips on a
    virtual machine. The peak stays the same. C libraries without these settings are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # Where the threshold of mmap was refused, that of trimming would only keep glibc from raising
    # it by itself, and a pass would take twice as long.
    if mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) or mallopt(M_MMAP_THRESHOLD, MOST_OF_OLDER_GLIBC):
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def memory_and_device(device: torch.device) -> dict[str, Any]:
    """Return where this process ran, on what, and its peak memory in bytes so far."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "host": socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device) if cuda else 0,
    }
