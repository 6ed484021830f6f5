"""Weights without training: reproducible from the names and shapes of a network's entries.

They let the workflow and its tests run a real network without a download. Random convolutions
keep enough of a sound's spectrum and envelope to tell simple sounds apart.
"""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from hear_mn.checkpoints import Checkpoint, expected_shapes
from hear_mn.whole import write_whole


def seeded_entry(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the entry of this name: normal weights of variance 2 / fan-in, mild batch norms.

    numpy's generator gives the same values on every machine; its seed is the name's checksum.
    """
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_mean"):
        return torch.zeros(shape, dtype=torch.float32)
    if name.endswith("running_var"):
        return torch.ones(shape, dtype=torch.float32)
    noise = torch.from_numpy(
        np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    )
    if name.endswith("bias"):
        return 0.05 * noise
    if len(shape) == 1:  # batch-norm scale
        return 1 + 0.1 * noise
    return noise * math.sqrt(2 / math.prod(shape[1:]))


def write_seeded(row: Checkpoint, target: Path) -> None:
    """Write the seeded state dict of a checkpoint's network; the file appears whole."""
    entries = {name: seeded_entry(name, shape) for name, shape in expected_shapes(row).items()}
    buffer = io.BytesIO()  # torch.save writes a path's name into the file, a buffer has none
    torch.save(entries, buffer)
    write_whole(target, buffer.getvalue())
