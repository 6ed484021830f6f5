"""What a job holds of its machine."""

import ctypes
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch

from workflow_scripts.hear2021.run import devices
from workflow_scripts.hear2021.run.devices import DeviceError, claimed_device, memory_and_device

USE_AGAIN = """
import resource, sys
import numpy as np
from workflow_scripts.hear2021.run.devices import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def fill():
    for _ in range(3):
        several = [np.ones(24 << 20, dtype=np.uint8) for _ in range(5)]
        del several

fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's setting")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    def page_faults(how: str) -> int:
        run = [sys.executable, "-c", USE_AGAIN, how]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    assert page_faults("keep") < 0.1 * page_faults("give back")


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (1 << 30, [(-3, 1 << 30), (-1, 1 << 30)]),
        (32 << 20, [(-3, 1 << 30), (-3, 32 << 20), (-1, 1 << 30)]),  # older glibc
        (0, [(-3, 1 << 30), (-3, 32 << 20)]),
    ],
)
def test_freed_memory_is_kept_only_where_large_blocks_can_be(monkeypatch, most, kept):
    asked = []

    class Library:
        def mallopt(self, parameter, value):
            asked.append((parameter, value))
            return int(parameter != -3 or value <= most)

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: Library())
    devices.keep_freed_memory()
    assert asked == kept


def test_a_gpu_that_torch_cannot_use_stops_a_job_instead_of_leaving_it_on_the_cpu(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with claimed_device() as device:
        assert device == torch.device("cpu")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module 470.82\n")
    with pytest.raises(DeviceError, match=r"470\.82.*sees no GPU"), claimed_device():
        pass
    for hidden in ("-1", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with claimed_device() as device:
            assert device == torch.device("cpu")


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine that says it has two GPUs, by what `claimed_device` asks."""

    class Properties:
        def __init__(self, index):
            self.uuid = f"GPU-{index}"

    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    for name, answer in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": Properties,
        "get_device_capability": lambda index: (9, 0) if index == 0 else (7, 0),
        "get_device_name": lambda device: ["H100", "V100"][torch.device(device).index],
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90a", "compute_90"],
        "set_device": lambda index: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)


def test_a_job_holds_a_gpu_of_its_own(two_gpus):
    with claimed_device() as first:
        assert first == torch.device("cuda", 0)
        with pytest.raises(DeviceError, match=r"V100.* has compute capability 7\.0.* needs 7\.5"):
            claimed_device().__enter__()
    with claimed_device() as again:
        assert again == first


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (12, 0)])
def test_a_gpu_is_used_if_it_is_no_older_than_torch_was_made_for(two_gpus, monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    with claimed_device() as device:
        assert device == torch.device("cuda", 0)


def test_a_job_waits_until_a_gpu_is_free(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    with claimed_device(), ExitStack() as other_job:
        assert other_job.enter_context(claimed_device()) == torch.device("cuda", 1)
        monkeypatch.setattr(devices.time, "sleep", lambda seconds: other_job.close())
        with claimed_device() as freed:
            assert freed == torch.device("cuda", 1)
            assert current == [0, 1, 1]


def test_a_job_that_fails_leaves_its_gpu_to_others(two_gpus):
    with pytest.raises(MemoryError), claimed_device():
        raise MemoryError
    with claimed_device() as device:
        assert device == torch.device("cuda", 0)


def test_a_job_says_where_it_ran_and_how_much_memory_it_took(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    measured = memory_and_device(torch.device("cpu"))
    assert 10e6 < measured.pop("peak_memory_bytes") < 1e12
    assert measured == {
        "device": "cpu",
        "cuda_visible_devices": "2",
        "host": socket.gethostname(),
        "slurm_job_id": "17",
        "threads": torch.get_num_threads(),
        "peak_gpu_memory_bytes": 0,
    }


def test_a_job_on_a_gpu_says_which_and_how_much_of_its_memory_it_took(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: device.index + 5)
    measured = memory_and_device(torch.device("cuda", 0))
    assert (measured["device"], measured["peak_gpu_memory_bytes"]) == ("H100", 5)
