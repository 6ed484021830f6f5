"""The device of a job: a GPU that no other job on this machine holds, or the CPU."""

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
