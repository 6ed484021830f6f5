"""Scores of a split's predictions: the one that decides at validation, and all of them at the test.

As in heareval's ScenePredictionModel and EventPredictionModel, with one difference that changes no
result: at validation only what decides is computed.
"""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from workflow_scripts.hear2021.evaluation.events import Events, Timestamps, detect_events
from workflow_scripts.hear2021.evaluation.heareval_definitions import (
    EVENT_POSTPROCESSING_GRID,
    EVENT_SCORES,
    get_splits_from_metadata,
    parameter_grid,
)
from workflow_scripts.hear2021.evaluation.packing import PackedTask

if TYPE_CHECKING:
    from heareval.score import ScoreFunction

Postprocessing = tuple[tuple[str, Any], ...]
"""Arguments of `detect_events` and their values, by name; empty for scene tasks."""


@dataclass(frozen=True)
class Predictions:
    """What a predictor gives for the rows of one split.

    Attributes:
        split: the split.
        logits: (n_rows, n_labels)
        probabilities: (n_rows, n_labels)
    """

    split: str
    logits: torch.Tensor
    probabilities: torch.Tensor


class Accuracy:
    """heareval's Top1Accuracy and ChromaAccuracy, of all rows at once, where the tensors are.

    Args:
        name: heareval's name of the score.
        classes: labels this far apart count as equal; default: none do.
    """

    maximize = True

    def __init__(self, name: str, classes: int | None = None) -> None:
        self._name = name
        self._classes = classes

    def __str__(self) -> str:
        """Return heareval's name of the score."""
        return self._name

    def __call__(self, probabilities: torch.Tensor, active: torch.Tensor) -> float:
        """Return the share of rows (n_rows, n_labels) whose largest values are at one label."""
        predicted, true = probabilities.argmax(dim=1), active.argmax(dim=1)
        if self._classes is not None:
            predicted, true = predicted % self._classes, true % self._classes
        return int((predicted == true).sum()) / len(true)


# What scikit-learn says of a label that no clip, or every clip, has: at every validation, for every
# label, without its name. `Scorer` says it once.
ONE_SIDED_LABELS = "No positive class found in y_true|Only one class is present in y_true"
NAMED_LABELS = 5

ACCURACIES = {
    "top1_acc": Accuracy("top1_acc"),
    "pitch_acc": Accuracy("pitch_acc"),
    "chroma_acc": Accuracy("chroma_acc", classes=12),
}


class Scorer:
    """The scores of one task.

    Attributes:
        mode: "max" or "min", what is better in the monitored value.

    Raises:
        ValueError: for a score heareval does not have, several ways of postprocessing where no
            score chooses between them, or a clip with a single timestamp where events are found in
            it by a median filter.
    """

    def __init__(self, packed: PackedTask) -> None:
        metadata = packed.task.metadata
        self._packed = packed
        multiclass = packed.task.prediction_type == "multiclass"
        self._loss = cross_entropy if multiclass else binary_cross_entropy_with_logits
        self._scores = [_score_function(name, packed) for name in metadata["evaluation"]]
        self._scores_decide = metadata.get("use_scoring_for_early_stopping", True)
        self.mode = "max" if self._scores_decide and self._scores[0].maximize else "min"
        self._postprocessings: list[Postprocessing] = [()]
        self._timestamps_by_split: dict[str, Timestamps] = {}
        if packed.task.embedding_type == "event":
            grid = metadata.get("evaluation_params", {}).get(
                "event_postprocessing_grid", EVENT_POSTPROCESSING_GRID
            )
            self._postprocessings = [tuple(values.items()) for values in parameter_grid(grid)]
            if not self._scores_decide and len(self._postprocessings) != 1:
                raise ValueError(
                    f"{packed.task.name}: {len(self._postprocessings)} ways of postprocessing, and "
                    f"use_scoring_for_early_stopping is false, so that nothing chooses one of them"
                )
            if any(dict(way).get("median_filter_ms", True) for way in self._postprocessings):
                self._refuse_single_timestamps()
        elif not all(isinstance(score, Accuracy) for score in self._scores):
            self._warn_of_one_sided_labels()

    def monitored(self, predictions: Predictions) -> tuple[float, Postprocessing]:
        """Return the value that decides at validation, and the postprocessing it goes with."""
        if not self._scores_decide:
            return self._loss_of(predictions), self._postprocessings[0]
        if self._packed.task.embedding_type == "scene":
            return _logged(self._deciding_score(predictions)), ()
        scored = []
        for postprocessing in self._postprocessings:
            events = self._events(predictions, postprocessing)
            value = _primary(self._event_scores(self._scores[0], events, predictions.split))
            # heareval takes a score that is not defined for zero when it chooses, not when it logs
            scored.append((0.0 if np.isnan(value) else value, postprocessing, value))
        _, postprocessing, value = max(scored, key=lambda way: way[:2])
        return _logged(value), postprocessing

    def tested(self, predictions: Predictions, postprocessing: Postprocessing) -> dict[str, float]:
        """Return the loss and all scores under heareval's names, the first score also as such."""
        result = {"test_loss": self._loss_of(predictions)}
        named = {}
        if self._packed.task.embedding_type == "scene":
            for function in self._scores:
                named[f"test_{function}"] = self._scene_score(function, predictions)
        else:
            events = self._events(predictions, postprocessing)
            for function in self._scores:
                values = self._event_scores(function, events, predictions.split)
                named[f"test_{function}"] = _primary(values)
                named |= {f"test_{function}_{name}": value for name, value in values.items()}
        result["test_score"] = named[f"test_{self._scores[0]}"]
        result |= named
        return {name: _logged(value) for name, value in result.items()}

    def _scored_splits(self) -> list[str]:
        scored = ("test", "valid") if self._scores_decide else ("test",)
        data_splits = get_splits_from_metadata(self._packed.task.metadata)
        names = [name for of in data_splits for part in scored for name in of[part]]
        return list(dict.fromkeys(names))

    def _warn_of_one_sided_labels(self) -> None:
        undefined = "aucroc and d_prime are not defined"
        only_map = {str(score) for score in self._scores} == {"mAP"}
        for name in self._scored_splits():
            split = self._packed.splits[name]
            active = self._packed.active[split.start : split.stop].bool()
            unused = ~active.any(dim=0)
            self._warn_of(name, unused, "no clip", f"in mAP each counts as 0, and {undefined}")
            if not only_map:
                self._warn_of(name, active.all(dim=0), "every clip", undefined)

    def _warn_of(self, split: str, which: torch.Tensor, clips: str, effect: str) -> None:
        task = self._packed.task
        labels = [label for label, is_it in zip(task.labels, which.tolist(), strict=True) if is_it]
        if labels:
            named = ", ".join(map(repr, labels[:NAMED_LABELS]))
            named += ", ..." if len(labels) > NAMED_LABELS else ""
            warnings.warn(
                f"{task.name}, split {split}: {len(labels)} of {len(task.labels)} labels apply to "
                f"{clips} ({named}): {effect}, as in heareval",
                stacklevel=4,
            )

    def _refuse_single_timestamps(self) -> None:
        task = self._packed.task
        for name in self._scored_splits():
            split = self._packed.splits[name]
            for clip, times_ms in zip(split.clips, split.times_ms, strict=True):
                if len(times_ms) == 1:
                    raise ValueError(
                        f"{task.name}, split {name}, clip {clip.name}: a single timestamp, which "
                        f"gives no hop to lay a median filter by; leave the clip out, or set "
                        f"median_filter_ms to 0 in event_postprocessing_grid"
                    )

    def _loss_of(self, predictions: Predictions) -> float:
        split = self._packed.splits[predictions.split]
        targets = self._packed.targets[split.start : split.stop]
        return self._loss(predictions.logits, targets).item()

    def _deciding_score(self, predictions: Predictions) -> float:
        if predictions.probabilities.is_cuda and str(self._scores[0]) == "mAP":
            return mean_average_precision(predictions.probabilities, self._active(predictions))
        return self._scene_score(self._scores[0], predictions)

    def _scene_score(self, function: "Accuracy | ScoreFunction", predictions: Predictions) -> float:
        tensors = predictions.probabilities, self._active(predictions)
        if isinstance(function, Accuracy):
            return function(*tensors)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ONE_SIDED_LABELS)
                return function(*(tensor.cpu().numpy() for tensor in tensors))
        except ValueError as error:  # of scikit-learn, for predictions that are NaN
            where = f"{self._packed.task.name}, split {predictions.split}"
            raise ValueError(f"{where}: {function} of its predictions: {error}") from error

    def _active(self, predictions: Predictions) -> torch.Tensor:
        split = self._packed.splits[predictions.split]
        return self._packed.active[split.start : split.stop]

    def _events(self, predictions: Predictions, postprocessing: Postprocessing) -> Events:
        timestamps = self._timestamps(predictions.split)
        return detect_events(predictions.probabilities, timestamps, **dict(postprocessing))

    def _timestamps(self, split: str) -> Timestamps:
        if split not in self._timestamps_by_split:
            times_ms = self._packed.splits[split].times_ms
            self._timestamps_by_split[split] = Timestamps(times_ms, self._packed.device)
        return self._timestamps_by_split[split]

    def _event_scores(
        self, function: "Accuracy | ScoreFunction", events: Events, split: str
    ) -> dict[str, float]:
        # scipy.sparse: a third of a second that scene tasks do without
        from workflow_scripts.hear2021.evaluation import event_scores  # noqa: PLC0415

        return event_scores.score(function, events, self._packed.splits[split].events)


def mean_average_precision(probabilities: torch.Tensor, active: torch.Tensor) -> float:
    """Return heareval's mAP to the rounding of float64, computed where the tensors are.

    For validations on a GPU, which scikit-learn, going class by class, would leave idle: 0.3 s for
    4170 rows and 200 labels, once for each of the predictors trained side by side.

    Args:
        probabilities: (n_rows, n_labels)
        active: (n_rows, n_labels), 1 where a label applies.

    Returns:
        The mean over labels; NaN for a probability that is NaN.
    """
    ordered, order = probabilities.sort(dim=0, descending=True)
    if ordered[0].isnan().any():  # where they are sorted to; NaN ends a training
        return math.nan
    found = active.gather(0, order).double().cumsum(dim=0)  # true positives among the rows so far
    # Rows of equal probability are one threshold, at the last of them.
    is_threshold = torch.ones_like(ordered, dtype=torch.bool)
    is_threshold[:-1] = ordered[:-1] != ordered[1:]
    at_thresholds = torch.where(is_threshold, found, 0).cummax(dim=0).values
    before = torch.cat([torch.zeros_like(found[:1]), at_thresholds[:-1]])
    n_rows = torch.arange(1, len(found) + 1, device=found.device, dtype=found.dtype)[:, None]
    precisions = torch.where(is_threshold, (found - before) * found / n_rows, 0).sum(dim=0)
    # A label that applies nowhere counts as 0.
    return (precisions / found[-1].clamp(min=1)).mean().item()


def _score_function(name: str, packed: PackedTask) -> "Accuracy | ScoreFunction":
    if name in ACCURACIES:
        return ACCURACIES[name]
    label_to_index = {label: i for i, label in enumerate(packed.task.labels)}
    if name in EVENT_SCORES:
        return EVENT_SCORES[name](label_to_idx=label_to_index)
    # scikit-learn, scipy.stats and sed_eval: two seconds that other tasks do without
    from heareval.score import available_scores  # noqa: PLC0415

    if name not in available_scores:
        raise ValueError(
            f"{packed.task.name}: heareval has no score {name}, only {', '.join(available_scores)}"
        )
    return available_scores[name](label_to_idx=label_to_index)


def _primary(scores: dict[str, float]) -> float:
    return next(iter(scores.values()))


def _logged(value: float) -> float:
    """Round as Lightning's log does: Python floats to float32, numpy's float64 stay as they are."""
    return torch.tensor(value).item()
