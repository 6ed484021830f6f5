"""The files of a released HEAR task: metadata, label vocabulary, annotations of each split."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from workflow_scripts.hear2021.tasks.task import Event, TaskError

EMBEDDING_TYPES = ("scene", "event")
PREDICTION_TYPES = ("multiclass", "multilabel")
FOLD_MODES = ("new_split_kfold", "presplit_kfold")
SPLIT_MODES = ("trainvaltest", *FOLD_MODES)
SINGLE_SPLITS = ("train", "valid", "test")
SCORES = {
    "scene": ("top1_acc", "pitch_acc", "chroma_acc", "mAP", "d_prime", "aucroc"),
    "event": (
        "event_onset_200ms_fms",
        "event_onset_50ms_fms",
        "event_onset_offset_50ms_20perc_fms",
        "segment_1s_er",
    ),
}
REQUIRED_METADATA = (
    "task_name",
    "embedding_type",
    "prediction_type",
    "split_mode",
    "splits",
    "sample_duration",
    "evaluation",
)

POSTPROCESSING_GRID = "event_postprocessing_grid"
POSTPROCESSING = ("threshold", "median_filter_ms", "min_duration")

METADATA_FILE = "task_metadata.json"
VOCABULARY_FILE = "labelvocabulary.csv"

Annotation = tuple[str, ...] | tuple[Event, ...]


def read_metadata(task: str, text: str) -> dict[str, Any]:
    """Parse and check task_metadata.json: every key that heareval reads, and its values.

    Raises:
        TaskError: naming the key, its value and what is allowed.
    """
    metadata = _parse_json(task, METADATA_FILE, text)
    absent = [key for key in REQUIRED_METADATA if key not in metadata]
    if absent:
        raise _error(task, METADATA_FILE, f"has no {', '.join(absent)}")
    _check_value(task, metadata, "embedding_type", EMBEDDING_TYPES)
    _check_value(task, metadata, "prediction_type", PREDICTION_TYPES)
    _check_value(task, metadata, "split_mode", SPLIT_MODES)
    _check_splits(task, metadata)
    _check_duration(task, metadata["sample_duration"])
    for key, kind in (("evaluation_params", dict), ("use_scoring_for_early_stopping", bool)):
        if key in metadata and not isinstance(metadata[key], kind):
            allowed = "an object" if kind is dict else "true or false"
            raise _error(task, METADATA_FILE, f"{key} is {metadata[key]!r}, not {allowed}")
    _check_evaluation_params(task, metadata.get("evaluation_params", {}))
    known = SCORES[metadata["embedding_type"]]
    scores = metadata["evaluation"]
    if not scores or not isinstance(scores, list) or any(score not in known for score in scores):
        raise _error(
            task,
            METADATA_FILE,
            f"evaluation is {scores!r}; a task of {metadata['embedding_type']} embeddings is "
            f"scored by one or more of {', '.join(known)}",
        )
    return metadata


def read_vocabulary(task: str, text: str) -> list[str]:
    """Parse labelvocabulary.csv (columns idx, label) into the labels by index, as strings.

    Raises:
        TaskError: if a column is missing, the indices are not 0 to n - 1, or a label comes twice.
    """
    rows = list(csv.DictReader(io.StringIO(text, newline=None)))
    if not rows or not {"idx", "label"} <= rows[0].keys():
        first = next(iter(text.splitlines()), "")
        raise _error(
            task,
            VOCABULARY_FILE,
            f"is not a table with the columns idx and label, with a comma between them, and a "
            f"line a label; its first line is {first!r}",
        )
    try:
        by_index = {int(row["idx"]): row["label"] for row in rows}
    except (TypeError, ValueError) as error:
        raise _error(task, VOCABULARY_FILE, f"has an idx that is no integer ({error})") from error
    if len(by_index) != len(rows) or set(by_index) != set(range(len(rows))):
        raise _error(
            task,
            VOCABULARY_FILE,
            f"has {len(rows)} labels, so idx must go from 0 to {len(rows) - 1}, each once; "
            f"it has {sorted(by_index)[:20]}",
        )
    labels = [by_index[index] for index in range(len(rows))]
    unnamed = [index for index, label in enumerate(labels) if not label]
    if unnamed:
        raise _error(task, VOCABULARY_FILE, f"has no label at idx {unnamed[0]}")
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise _error(task, VOCABULARY_FILE, f"lists the labels {repeated} more than once")
    return labels


def read_split(
    task: str, split: str, text: str, metadata: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, Annotation]:
    """Parse and check `<split>.json`: clip file name -> its labels, or its events.

    Labels that are numbers become strings, as in heareval.

    Raises:
        TaskError: naming the clip: a label outside the vocabulary, not exactly one label in a
            multiclass task, an event that ends before it starts or lies far outside its clip,
            events in seconds, or a file name that leads out of the split's folder.
    """
    file = f"{split}.json"
    listed = _parse_json(task, file, text)
    if not listed:
        raise _error(task, file, "lists no clip")
    vocabulary = frozenset(labels)
    annotations: dict[str, Annotation] = {}
    for name, annotation in listed.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name:
            raise _error(task, file, f"{name!r} is no file name within the split's folder")
        if not isinstance(annotation, list):
            raise _error(task, file, f"{name}: its annotation is {annotation!r}, not a list")
        if metadata["embedding_type"] == "event":
            duration = metadata["sample_duration"]
            events = tuple(_event(task, file, name, event, duration) for event in annotation)
            used = [event["label"] for event in events]
            annotations[name] = events
        else:
            used = [str(label) for label in annotation]
            annotations[name] = tuple(used)
            if metadata["prediction_type"] == "multiclass" and len(used) != 1:
                raise _error(
                    task, file, f"{name} has the labels {used}; in a multiclass task it has one"
                )
        unknown = sorted({label for label in used if label not in vocabulary})
        if unknown:
            raise _error(
                task, file, f"{name} has labels that {VOCABULARY_FILE} does not list: {unknown}"
            )
    if metadata["embedding_type"] == "event":
        _refuse_seconds(task, file, annotations, metadata["sample_duration"])
    return annotations


def _refuse_seconds(
    task: str, file: str, annotations: Mapping[str, Any], sample_duration: float | None
) -> None:
    """Refuse events that all end within a thousandth of their clips: their times are in seconds."""
    latest = max((event["end"] for clip in annotations.values() for event in clip), default=None)
    if sample_duration and latest is not None and latest <= sample_duration:
        raise _error(
            task,
            file,
            f"has events of which the last ends at {latest} ms, in clips of {sample_duration} s; "
            f"times are in milliseconds",
        )


def _event(task: str, file: str, clip: str, event: Any, sample_duration: float | None) -> Event:
    try:
        parsed = Event(
            label=str(event["label"]), start=float(event["start"]), end=float(event["end"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _error(
            task, file, f"{clip}: {event!r} is no event with label, start and end in ms"
        ) from error
    start, end = parsed["start"], parsed["end"]
    # An annotation may outlast a trimmed clip a little; twice its length means another unit.
    latest = math.inf if sample_duration is None else 2000 * sample_duration
    if not (0 <= start <= end <= latest and math.isfinite(end)):
        raise _error(
            task,
            file,
            f"{clip}: the event {event!r} must have 0 <= start <= end in ms, within the clip"
            + ("" if sample_duration is None else f" of {sample_duration} s"),
        )
    return parsed


def _check_evaluation_params(task: str, parameters: Mapping[str, Any]) -> None:
    for name in ("task_specific_param_grid", POSTPROCESSING_GRID):
        grid = parameters.get(name, {})
        lists = isinstance(grid, dict) and all(isinstance(v, list) and v for v in grid.values())
        if not lists:
            raise _error(task, METADATA_FILE, f"{name} is {grid!r}; of each key it lists values")
    unknown = sorted(set(parameters.get(POSTPROCESSING_GRID, {})) - set(POSTPROCESSING))
    if unknown:
        raise _error(
            task,
            METADATA_FILE,
            f"{POSTPROCESSING_GRID} has {', '.join(unknown)}; allowed: {', '.join(POSTPROCESSING)}",
        )


def _check_splits(task: str, metadata: Mapping[str, Any]) -> None:
    splits, mode = metadata["splits"], metadata["split_mode"]
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        raise _error(task, METADATA_FILE, f"splits is {splits!r}, not a list of names")
    if len(set(splits)) != len(splits) or any(len(PurePosixPath(s).parts) != 1 for s in splits):
        raise _error(task, METADATA_FILE, f"splits is {splits}: plain names, each once")
    if mode == "trainvaltest" and sorted(splits) != sorted(SINGLE_SPLITS):
        raise _error(
            task, METADATA_FILE, f"splits is {splits}; with trainvaltest it is {SINGLE_SPLITS}"
        )
    if mode in FOLD_MODES and len(splits) < 3:
        raise _error(
            task,
            METADATA_FILE,
            f"splits is {splits}; {mode} needs three or more folds: to train, validate and test",
        )


def _check_duration(task: str, duration: Any) -> None:
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)
    if duration is not None and not (is_number and duration > 0):
        raise _error(
            task, METADATA_FILE, f"sample_duration is {duration!r}, not seconds above 0 or null"
        )


def _check_value(task: str, metadata: Mapping[str, Any], key: str, allowed: Sequence[str]) -> None:
    if metadata[key] not in allowed:
        raise _error(
            task, METADATA_FILE, f"{key} is {metadata[key]!r}; allowed: {', '.join(allowed)}"
        )


def _parse_json(task: str, file: str, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys)
    except ValueError as error:
        raise _error(task, file, f"is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise _error(task, file, "is not a JSON object")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return content


def _error(task: str, file: str, what: str) -> TaskError:
    return TaskError(f"{task}: {file} {what}. Correct the file in the task's archive or folder.")
