"""What the evaluation takes from heareval, without what heareval's modules import.

`heareval.predictions.task_predictions` imports PyTorch Lightning and `heareval.score` imports
scikit-learn, pandas and dcase_util: more than torch's time, for definitions that use none of it.
So the definitions are read from the installed module's source and run by themselves: they are
heareval's, and a release that changes them changes them here.
"""

import __future__

import ast
import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

MODULE = "heareval.predictions.task_predictions"


def definitions(
    module: str, names: Iterable[str], namespace: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run only the named top-level definitions of a module.

    Args:
        module: an importable module; its source is read, it is not imported.
        names: the functions, classes and assigned names wanted.
        namespace: the names that these use.

    Returns:
        The values of `names`.

    Raises:
        ImportError: if the module or one of the names is not there.
    """
    source = _source(module)
    wanted = set(names)
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = [node for node in tree.body if _defined_name(node) in wanted]
    absent = wanted - {_defined_name(node) for node in found}
    if absent:
        raise ImportError(f"{module} ({source}) does not define {', '.join(sorted(absent))}")
    code = compile(
        ast.Module(found, type_ignores=[]),
        source,
        "exec",
        flags=__future__.annotations.compiler_flag,  # the annotations' names are not needed
        dont_inherit=True,
    )
    values = {"__name__": module, **(namespace or {})}
    exec(code, values)
    return {name: values[name] for name in wanted}


def parameter_grid(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return the points of a grid, as sklearn.model_selection.ParameterGrid and in its order.

    heareval's grids are scikit-learn's, whose import takes as long as torch's.
    """
    names = sorted(values)
    points = itertools.product(*(values[name] for name in names))
    return [dict(zip(names, point, strict=True)) for point in points]


def _source(module: str) -> Path:
    """Return a module's file; looking for one in a package the usual way imports the package."""
    package, *path = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not installed")
    source = Path(spec.submodule_search_locations[0], *path).with_suffix(".py")
    if not source.exists():
        raise ImportError(f"{module} is not there ({source})")
    return source


def _defined_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign):
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


_heareval = definitions(
    MODULE,
    [
        "EVENT_POSTPROCESSING_GRID",
        "PARAM_GRID",
        "TASK_SPECIFIC_PARAM_GRID",
        "FullyConnectedPrediction",
        "data_splits_from_folds",
        "get_splits_from_metadata",
        "hparams_to_json",
        "serialize_value",
        "sort_grid_points",
    ],
    {
        "torch": torch,
        # heareval's class turns one-hot rows into indices and calls this; packing has done that.
        "OneHotToCrossEntropyLoss": torch.nn.CrossEntropyLoss,
    },
)

EVENT_POSTPROCESSING_GRID: dict[str, list[float]] = _heareval["EVENT_POSTPROCESSING_GRID"]
PARAM_GRID: dict[str, list[Any]] = _heareval["PARAM_GRID"]
TASK_SPECIFIC_PARAM_GRID: dict[str, dict[str, list[Any]]] = _heareval["TASK_SPECIFIC_PARAM_GRID"]
get_splits_from_metadata: Callable[[dict[str, Any]], list[dict[str, list[str]]]] = _heareval[
    "get_splits_from_metadata"
]
hparams_to_json: Callable[[dict[str, Any]], dict[str, Any]] = _heareval["hparams_to_json"]
sort_grid_points: Callable[[list[Any]], list[Any]] = _heareval["sort_grid_points"]

if TYPE_CHECKING:

    class FullyConnectedPrediction(torch.nn.Module):
        """heareval's network, as far as it is used."""

        hidden: torch.nn.Module
        projection: torch.nn.Module
        activation: torch.nn.Module
        logit_loss: torch.nn.Module

        def __init__(
            self, nfeatures: int, nlabels: int, prediction_type: str, conf: dict[str, Any]
        ) -> None: ...

        def forward_logit(self, x: torch.Tensor) -> torch.Tensor:
            """Map rows (n_rows, nfeatures) to logits (n_rows, nlabels)."""

else:
    FullyConnectedPrediction = _heareval["FullyConnectedPrediction"]


_scores = definitions(
    "heareval.score",
    [
        *("ScoreFunction", "Top1Accuracy", "ChromaAccuracy", "MeanAveragePrecision", "DPrime"),
        *("AUCROC", "SoundEventScore", "SegmentBasedScore", "EventBasedScore"),
        "available_scores",
    ],
    {
        "partial": functools.partial,
        # What computes the scores, in heareval; here `event_scores` does.
        "sed_eval": SimpleNamespace(
            sound_event=SimpleNamespace(SegmentBasedMetrics=object, EventBasedMetrics=object)
        ),
    },
)

EVENT_SCORES: dict[str, Callable[..., Any]] = {
    name: score
    for name, score in _scores["available_scores"].items()
    if issubclass(getattr(score, "func", score), _scores["SoundEventScore"])
}
"""heareval's scores of events: their parameters, not their computation."""
