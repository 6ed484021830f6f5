"""What a job holds of its machine."""

import ctypes
import subprocess
import sys

import pytest
import torch

from workflow_scripts.hear2021.run import devices
from workflow_scripts.hear2021.run.devices import DeviceError, claimed_device

USE_AGAIN = """
import resource, sys
import numpy as np
from workflow_scripts.hear2021.run.devices import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def fill():
    for _ in range(3):
        np.ones(64 << 20, dtype=np.uint8)

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
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
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
        "get_device_name": lambda index: ["H100", "V100"][index],
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90", "compute_90"],
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
