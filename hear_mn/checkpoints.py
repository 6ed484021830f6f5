"""Checkpoints: what is known of each, where its file is, and whether the file is the right one.

`checkpoints.csv` has a row a checkpoint. `source` says where its weights come from:

- `url`: a released file, fetched on first use;
- `seeded`: made on the spot from the names and shapes of the entries (`hear_mn.seeded`);
- `module`: not ours: any importable module with the HEAR API, which finds its own weights. Such a
  row needs only `checkpoint`, `source`, `module` and `sample_rate`; `parameters` and `macs_10s` put
  it into the figures of complexity and its jobs' time limits nearer to what they take.

This module imports torch only where weights are read.
"""

from __future__ import annotations

import csv
import difflib
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hear_mn.architecture import feature_sizes

if TYPE_CHECKING:
    import torch


class UnknownCheckpoint(ValueError):  # noqa: N818
    """A name that is in no row of checkpoints.csv; the message lists what exists."""


class CheckpointError(ValueError):
    """Weights that cannot be loaded: no state dict, or of another architecture."""


@dataclass(frozen=True)
class Checkpoint:
    """One row of checkpoints.csv; an empty cell is None. `macs_10s`: multiply-adds of 10 s."""

    checkpoint: str
    source: str
    sample_rate: int
    url: str | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    git_blob_sha1: str | None = None
    width: float = 0.0
    head: str = ""
    strides: tuple[int, ...] = ()
    n_mels: int = 0
    win_length: int = 0
    hop: int = 0
    n_fft: int = 0
    module: str | None = None
    mAP: float | None = None  # noqa: N815
    parameters: int | None = None
    macs_10s: int | None = None
    note: str | None = None

    @functools.cached_property
    def feature_sizes(self) -> Mapping[str, int]:
        """The size of every feature this checkpoint's network gives; empty for a module."""
        if self.module:
            return MappingProxyType({})
        return MappingProxyType(feature_sizes(self.width, self.head, self.n_mels))

    @property
    def front_end(self) -> dict[str, int]:
        """The settings by which a waveform becomes the network's input; a module has its own."""
        names = ["sample_rate"]
        if self.module is None:
            names += ["n_mels", "win_length", "hop", "n_fft"]
        return {name: getattr(self, name) for name in names}

    @property
    def network(self) -> dict[str, float | str | list[int]]:
        """What makes the network's architecture; of a module, nothing."""
        if self.module:
            return {}
        return {"width": self.width, "head": self.head, "strides": list(self.strides)}


def _strides(cell: str) -> tuple[int, ...]:
    return tuple(int(stride) for stride in cell.split())


_WHOLE = ("sample_rate", "size", "n_mels", "win_length", "hop", "n_fft", "parameters", "macs_10s")
_CONVERT: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(_WHOLE, int),
    "width": float,
    "mAP": float,
    "strides": _strides,
}


@functools.cache
def checkpoints() -> Mapping[str, Checkpoint]:
    """Return all checkpoints by name, in the table's order."""
    with (Path(__file__).parent / "checkpoints.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [
            Checkpoint(**{key: _CONVERT.get(key, str)(cell) for key, cell in row.items() if cell})
            for row in csv.DictReader(file)
        ]
    return MappingProxyType({row.checkpoint: row for row in rows})


def checkpoint(name: str) -> Checkpoint:
    """Return the checkpoint of this name; raises UnknownCheckpoint."""
    try:
        return checkpoints()[name]
    except KeyError:
        near = difflib.get_close_matches(name, checkpoints(), n=3)
        raise UnknownCheckpoint(
            f"checkpoint {name!r} is not in checkpoints.csv."
            + (f" Did you mean {' or '.join(near)}?" if near else "")
            + f"\nCheckpoints: {' '.join(checkpoints())}"
        ) from None


def cache_directory() -> Path:
    """Return where weights are kept: HEAR_MN_CACHE, or ~/.cache/hear_mn."""
    named = os.environ.get("HEAR_MN_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "hear_mn"


def locate(name: str, cache: Path | None = None) -> Path:
    """Return the weights file of a checkpoint, fetched or made if it is not in the cache.

    The file is checked against the size and hashes of its row; with the right one in place
    nothing is asked of the network.

    Raises:
        UnknownCheckpoint: no row has this name.
        CheckpointError: the row is of a module.
        hear_mn.download.DownloadError: the file cannot be had or is not the one expected.
    """
    row = checkpoint(name)
    if row.file is None:
        raise CheckpointError(f"{name}: the module {row.module} finds its own weights")
    target = (cache or cache_directory()) / row.file
    if row.url:
        from hear_mn.download import fetch  # noqa: PLC0415

        return fetch(
            row.url, target, size=row.size, sha256=row.sha256, git_blob_sha1=row.git_blob_sha1
        )
    if not target.is_file():
        from hear_mn.seeded import write_seeded  # noqa: PLC0415

        write_seeded(row, target)
    return target


def load_state_dict(path: Path, row: Checkpoint) -> dict[str, torch.Tensor]:
    """Read a weights file for this checkpoint's network, on the CPU.

    Raises FileNotFoundError, or CheckpointError if the file is no state dict or one of another
    architecture; the message names the first entries that differ and the checkpoints that have
    this architecture, if any.
    """
    import torch  # noqa: PLC0415

    if not path.is_file():
        raise FileNotFoundError(f"{row.checkpoint}: there is no weights file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no pickle may raise anything
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise CheckpointError(
            f"{row.checkpoint}: {path} is not a file that torch.load reads with "
            f"weights_only=True, or it is damaged ({reason})"
        ) from error
    found = shapes(state) if isinstance(state, dict) else None
    if found is None:
        is_dict = isinstance(state, dict)
        holds = f"a dict of {', '.join(map(str, state))}" if is_dict else type(state).__name__
        raise CheckpointError(
            f"{row.checkpoint}: {path} holds {holds:.200} and no dictionary of tensors. Save the "
            f"network's state_dict() itself"
        )
    differences = _differences(expected_shapes(row), found)
    if differences:
        fits = [
            name
            for name, other in checkpoints().items()
            if other.module is None and expected_shapes(other) == found
        ]
        raise CheckpointError(
            f"{row.checkpoint}: the weights in {path} are of another architecture: "
            + "; ".join(differences[:3])
            + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
            + (f". They fit {', '.join(fits)}." if fits else ". They fit no known checkpoint.")
        )
    return state


def shapes(state: Mapping[str, object]) -> dict[str, tuple[int, ...]] | None:
    """Return the shape of every entry of a state dict, or None if it holds something else."""
    import torch  # noqa: PLC0415

    found = {}
    for name, entry in state.items():
        if not isinstance(entry, torch.Tensor):
            return None
        found[name] = tuple(entry.shape)
    return found


def expected_shapes(row: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the state dict that this checkpoint must have."""
    return _expected_shapes(row.width, row.head)


@functools.cache
def _expected_shapes(width: float, head: str) -> dict[str, tuple[int, ...]]:
    import torch  # noqa: PLC0415

    from hear_mn.mobilenet import MobileNet  # noqa: PLC0415

    with torch.device("meta"):
        network = MobileNet(width, head)
    return {name: tuple(entry.shape) for name, entry in network.state_dict().items()}


def _differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Say in words where two state dicts differ, in the network's order."""
    differences = []
    for name, shape in expected.items():
        if name not in found:
            differences.append(f"{name} is missing")
        elif found[name] != shape:
            differences.append(f"{name} is {found[name]}, expected {shape}")
    return differences + [f"{name} is not known" for name in found if name not in expected]
