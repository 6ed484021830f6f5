"""What a job holds of its machine: a GPU that no other job has, or the CPU; and its memory."""

import ctypes
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT_BYTES = 1 << 30


@contextmanager
def claimed_device() -> Iterator[torch.device]:
    """Hold one GPU while the block runs, waiting for a free one; the CPU where there is none.

    Snakemake does not say which GPU a local job may use. A lock per GPU does, and it is released
    when its holder dies. Under SLURM a job sees its own GPU only.
    """
    if not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    locks = [
        FileLock(Path(tempfile.gettempdir(), f"hear-mn-{properties.uuid}.lock"))
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    while True:
        for index, lock in enumerate(locks):
            try:
                with lock.acquire(timeout=0):
                    torch.cuda.set_device(index)
                    yield torch.device("cuda", index)
                    return
            except Timeout:
                continue
        time.sleep(1)


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, instead of giving it back to the system.

    A batch frees tens of megabytes that the next one asks for again. By default glibc gives them
    back in between, and each page comes anew and zeroed: a fifth of a pass over 10 s clips on a
    virtual machine. The peak stays the same. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(parameter, KEPT_BYTES)


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
