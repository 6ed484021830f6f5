"""Embeddings of a task in heareval's own directory layout, for heareval's own prediction runner."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hear_mn.whole import name_aside
from workflow_scripts.hear2021.evaluation.packing import PackedTask, TaskEmbeddings, pack


def export(embedded: TaskEmbeddings, directory: Path) -> None:
    """Write what `python -m heareval.predictions.runner <directory>` reads.

    For each split: `<split>.json` (the task's annotations), `<split>.embeddings.npy` (float32 rows
    without a header, in heareval's shuffled order), `<split>.embedding-dimensions.json`,
    `<split>.target-labels.pkl`, and for event tasks `<split>.filename-timestamps.json`; besides
    `task_metadata.json` and `labelvocabulary.csv`. The directory appears whole or not at all.

    Args:
        embedded: the task and its embeddings.
        directory: is made; its parent need not exist.

    Raises:
        FileExistsError: if there is something at `directory`.
        ValueError: see `packing.pack`.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} exists; delete it or export to another place")
    packed = pack(embedded)
    aside = name_aside(directory)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write(packed, aside, directory)
        aside.replace(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(packed: PackedTask, aside: Path, directory: Path) -> None:
    task = packed.task
    _write_json(aside / "task_metadata.json", task.metadata)
    vocabulary = pd.DataFrame({"idx": range(len(task.labels)), "label": task.labels})
    vocabulary.to_csv(aside / "labelvocabulary.csv", index=False)
    labels = np.array(task.labels, dtype=object)
    for name, split in packed.splits.items():
        rows = packed.rows[split.start : split.stop]
        active = packed.active[split.start : split.stop].numpy() > 0
        _write_json(
            aside / f"{name}.json",
            {clip.name: clip.events or clip.labels for clip in task.splits[name]},
        )
        rows.numpy().tofile(aside / f"{name}.embeddings.npy")
        _write_json(aside / f"{name}.embedding-dimensions.json", list(rows.shape))
        with (aside / f"{name}.target-labels.pkl").open("wb") as file:
            pickle.dump([labels[row].tolist() for row in active], file)
        if task.embedding_type == "event":
            # heareval names each clip by the path of the embedding file it had before packing
            timestamps = [
                (str(directory / name / clip.name), float(time))
                for clip, times in zip(split.clips, split.times_ms, strict=True)
                for time in times
            ]
            _write_json(aside / f"{name}.filename-timestamps.json", timestamps)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
