"""What passes leave behind, read by feature: the embeddings of a task for one variant."""

import json
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.hear2021.tasks.task import Clip, Task


class EmbeddingError(RuntimeError):
    """A pass that cannot go on, or embedding files that do not fit their task."""


def clips_by_length(task: Task) -> list[Clip]:
    """Return the clips of a task in the order of their embedding rows."""
    return sorted(task.clips, key=attrgetter("n_samples"))


class EmbeddedTask:
    """A task with the embeddings of one variant: what the evaluation works on.

    Args:
        task: the task.
        manifests: the manifests of embedding files that together hold `features`; their matrices
            lie beside them.
        features: in the order of concatenation; one may be named twice.

    Raises:
        EmbeddingError: if a file is missing, truncated or of other data, or a feature in none.
    """

    def __init__(self, task: Task, manifests: Sequence[Path], features: Sequence[str]) -> None:
        self.task = task
        self.identity: list[dict[str, Any]] = []
        self._times_ms: dict[str, list[float]] = {}
        stored: dict[str, np.ndarray] = {}
        for path in manifests:
            manifest = json.loads(path.read_text())
            matrix = _matrix(path.with_suffix(".npy"), manifest)
            if manifest["identity"]["task_sha256"] != task.sha256:
                raise EmbeddingError(
                    f"{path} was made from other data than {task.name} is now; delete it and "
                    f"start again"
                )
            self.identity.append(manifest["identity"])
            self._times_ms |= manifest["times_ms"] or {}
            for feature, (start, stop) in manifest["features"].items():
                stored.setdefault(feature, matrix[:, start:stop])
        absent = [feature for feature in features if feature not in stored]
        if absent:
            raise EmbeddingError(
                f"{task.name}: {', '.join(map(str, manifests))} hold no {', '.join(absent)}"
            )
        self._stored = [stored[feature] for feature in features]
        self._rows_of = self._row_ranges()

    @property
    def size(self) -> int:
        """The number of values of one embedding."""
        return sum(matrix.shape[1] for matrix in self._stored)

    def rows(self, split: str) -> np.ndarray:
        """Return the embeddings of a split's clips in their order, float32 (n_rows, size)."""
        wanted = np.concatenate([self._rows_of[clip] for clip in self._clips(split)])
        rows = np.empty((len(wanted), self.size), dtype=np.float32)
        column = 0
        for matrix in self._stored:
            rows[:, column : column + matrix.shape[1]] = matrix[wanted]
            column += matrix.shape[1]
        return rows

    def times_ms(self, split: str) -> list[np.ndarray]:
        """Return the times of the timestamp embeddings, one float32 array a clip of the split."""
        return [
            np.asarray(self._times_ms[str(clip.n_samples)], dtype=np.float32)
            for clip in self.task.splits[split]
        ]

    def _clips(self, split: str) -> list[tuple[str, str]]:
        return [(split, clip.name) for clip in self.task.splits[split]]

    def _row_ranges(self) -> dict[tuple[str, str], np.ndarray]:
        events = self.task.embedding_type == "event"
        ranges, start = {}, 0
        for clip in clips_by_length(self.task):
            count = len(self._times_ms[str(clip.n_samples)]) if events else 1
            ranges[clip.split, clip.name] = np.arange(start, start + count)
            start += count
        if any(len(matrix) != start for matrix in self._stored):
            raise EmbeddingError(f"{self.task.name}: the embeddings do not have {start} rows")
        return ranges


def _matrix(path: Path, manifest: dict[str, Any]) -> np.ndarray:
    try:
        matrix = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise EmbeddingError(
            f"{path} cannot be read ({error}); delete it and its .json and start again"
        ) from error
    if len(matrix) != manifest["rows"]:
        raise EmbeddingError(
            f"{path} has {len(matrix)} rows, its .json says {manifest['rows']}; delete both and "
            f"start again"
        )
    return matrix
