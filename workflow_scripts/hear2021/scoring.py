"""Scores of a split's predictions: the one that decides at validation, and all of them at the test.

As in heareval's ScenePredictionModel and EventPredictionModel, with one difference that changes no
result: at validation only what decides is computed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from heareval.score import ScoreFunction, Top1Accuracy, available_scores
from sklearn.model_selection import ParameterGrid
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from workflow_scripts.hear2021.events import Events, detect_events, score
from workflow_scripts.hear2021.heareval_definitions import EVENT_POSTPROCESSING_GRID
from workflow_scripts.hear2021.packing import PackedTask

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


class Scorer:
    """The scores of one task.

    Attributes:
        mode: "max" or "min", what is better in the monitored value.

    Raises:
        ValueError: for a score heareval does not have, or several ways of postprocessing where no
            score chooses between them.
    """

    def __init__(self, packed: PackedTask) -> None:
        metadata = packed.task.metadata
        unknown = set(metadata["evaluation"]) - available_scores.keys()
        if unknown:
            raise ValueError(
                f"{packed.task.name}: heareval has no score {', '.join(sorted(unknown))}, only "
                f"{', '.join(available_scores)}"
            )
        label_to_index = {label: i for i, label in enumerate(packed.task.labels)}
        self._packed = packed
        multiclass = packed.task.prediction_type == "multiclass"
        self._loss = cross_entropy if multiclass else binary_cross_entropy_with_logits
        self._scores: list[ScoreFunction] = [
            available_scores[name](label_to_idx=label_to_index) for name in metadata["evaluation"]
        ]
        self._scores_decide = metadata.get("use_scoring_for_early_stopping", True)
        self.mode = "max" if self._scores_decide and self._scores[0].maximize else "min"
        self._postprocessings = [()]
        if packed.task.embedding_type == "event":
            grid = metadata.get("evaluation_params", {}).get(
                "event_postprocessing_grid", EVENT_POSTPROCESSING_GRID
            )
            self._postprocessings = [tuple(values.items()) for values in ParameterGrid(grid)]
            if not self._scores_decide and len(self._postprocessings) != 1:
                raise ValueError(
                    f"{packed.task.name}: {len(self._postprocessings)} ways of postprocessing, and "
                    f"use_scoring_for_early_stopping is false, so that nothing chooses one of them"
                )

    def monitored(self, predictions: Predictions) -> tuple[float, Postprocessing]:
        """Return the value that decides at validation, and the postprocessing it goes with."""
        if not self._scores_decide:
            return self._loss_of(predictions), self._postprocessings[0]
        if self._packed.task.embedding_type == "scene":
            return _logged(self._scene_score(self._scores[0], predictions)), ()
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

    def _loss_of(self, predictions: Predictions) -> float:
        split = self._packed.splits[predictions.split]
        targets = self._packed.targets[split.start : split.stop]
        return self._loss(predictions.logits, targets).item()

    def _scene_score(self, function: ScoreFunction, predictions: Predictions) -> float:
        split = self._packed.splits[predictions.split]
        active = self._packed.active[split.start : split.stop].cpu().numpy()
        probabilities = predictions.probabilities.cpu().numpy()
        if isinstance(function, Top1Accuracy):  # heareval's goes row by row
            correct = probabilities.argmax(axis=1) == active.argmax(axis=1)
            return int(correct.sum()) / len(correct)
        return function(probabilities, active)

    def _events(self, predictions: Predictions, postprocessing: Postprocessing) -> Events:
        times = self._packed.splits[predictions.split].times_ms
        ends = np.cumsum([len(clip) for clip in times])
        clips = np.split(predictions.probabilities.cpu().numpy(), ends[:-1])
        return Events.concatenate(
            [
                detect_events(probabilities, times_ms, **dict(postprocessing))
                for probabilities, times_ms in zip(clips, times, strict=True)
            ]
        )

    def _event_scores(
        self, function: ScoreFunction, events: Events, split: str
    ) -> dict[str, float]:
        return score(function, events, self._packed.splits[split].events)


def _primary(scores: dict[str, float]) -> float:
    return next(iter(scores.values()))


def _logged(value: float) -> float:
    """Round as Lightning's log does: Python floats to float32, numpy's float64 stay as they are."""
    return torch.tensor(value).item()
