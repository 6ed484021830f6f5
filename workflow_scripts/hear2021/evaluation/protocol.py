"""heareval's evaluation of embeddings: a small network on top, its hyperparameters chosen by score.

The protocol is that of `python -m heareval.predictions.runner` 2021.1.3 (HEAR: Holistic Evaluation
of Audio Representations, Turian et al. 2022, section 3). Its grid, splits, network and scores are
heareval's own; the loop around them is not.

On a CPU, with the same number of threads, the chosen grid point, the epochs and all scores equal
the runner's. It crashes with Lightning 1.6 or newer on event tasks whose score chooses the epoch,
unless hear-eval-kit issue 432's line is in it
(`trainer.fit_loop.epoch_progress.current.completed = grid_point.epoch`).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from workflow_scripts.hear2021.evaluation.heareval_definitions import (
    PARAM_GRID,
    TASK_SPECIFIC_PARAM_GRID,
    get_splits_from_metadata,
    hparams_to_json,
    parameter_grid,
    sort_grid_points,
)
from workflow_scripts.hear2021.evaluation.packing import PackedTask, TaskEmbeddings, pack
from workflow_scripts.hear2021.evaluation.results import aggregate_test_results
from workflow_scripts.hear2021.evaluation.scoring import Scorer
from workflow_scripts.hear2021.evaluation.side_by_side import train_side_by_side
from workflow_scripts.hear2021.evaluation.training import (
    Conf,
    DataSplit,
    TrainedPredictor,
    Training,
    predict,
    train,
)

Progress = Callable[[int, int], None]
"""Called with the number of predictors trained so far and in all."""

TrainAll = Callable[[PackedTask, Sequence[Training], Scorer], Iterator[TrainedPredictor]]


def evaluate(
    embedded: TaskEmbeddings,
    *,
    grid_points: int = 8,
    seed: int = 42,
    device: torch.device | str = "cpu",
    side_by_side: bool | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and test predictors on a task's embeddings by heareval's protocol.

    Args:
        embedded: the task and its embeddings.
        grid_points: how many of the 16 grid points are tried, heareval's first ones.
        seed: of all random draws, and of the order of the grid points; heareval's is 42.
        device: where to train.
        side_by_side: train all grid points, and then all folds, at once; results are then equal to
            the runner's in distribution only. Default: on a GPU.
        progress: told after each training.

    Returns:
        The content of heareval's test.predicted-scores.json, `embedding_path` being the task's
        name: for each test split `test_loss`, `test_score`, `test_<score>`, `validation_score`,
        `epoch`, `time_in_min`; with several, `aggregated_scores`; `hparams`, `postprocessing`,
        `score_mode`.

    Raises:
        ValueError: for a task or embeddings the protocol cannot work on, naming the task.
    """
    device = torch.device(device)
    side_by_side = device.type == "cuda" if side_by_side is None else side_by_side
    packed = pack(embedded, device)
    data_splits = get_splits_from_metadata(packed.task.metadata)
    confs = grid(packed.task.metadata, seed)[:grid_points]
    for data_split in data_splits:
        for conf in confs:
            if conf["hidden_layers"]:  # without them nothing is normalised
                _refuse_a_batch_of_one(packed, data_split["train"], conf["batch_size"])
    with _random_state(seed, device):
        return _evaluate(
            packed,
            data_splits,
            confs,
            train_side_by_side if side_by_side else _train_in_turn,
            progress or (lambda done, total: None),
        )


def grid(metadata: dict[str, Any], seed: int) -> list[Conf]:
    """Return heareval's grid points for a task, in the order they are tried.

    Raises:
        NotImplementedError: for an optimiser other than Adam, the only one in heareval's grids.
    """
    values = PARAM_GRID | TASK_SPECIFIC_PARAM_GRID.get(metadata["task_name"], {})
    values |= metadata.get("evaluation_params", {}).get("task_specific_param_grid", {})
    if values["optim"] != [torch.optim.Adam]:
        raise NotImplementedError(
            f"heareval's grid has other optimisers than Adam: {values['optim']}"
        )
    confs = parameter_grid(values)
    random.Random(seed).shuffle(confs)
    return confs


def _evaluate(
    packed: PackedTask,
    data_splits: list[DataSplit],
    confs: list[Conf],
    train_all: TrainAll,
    progress: Progress,
) -> dict[str, Any]:
    scorer = Scorer(packed)
    in_all = len(confs) + len(data_splits) - 1
    tried = []
    for trained in train_all(packed, [(data_splits[0], conf) for conf in confs], scorer):
        tried.append(trained)
        progress(len(tried), in_all)
    best = sort_grid_points(tried)[0]
    predictors = [best]
    for trained in train_all(packed, [(split, best.conf) for split in data_splits[1:]], scorer):
        predictors.append(trained)
        progress(len(confs) + len(predictors) - 1, in_all)

    results: dict[str, Any] = {}
    for data_split, trained in zip(data_splits, predictors, strict=True):
        (test,) = data_split["test"]
        predictions = predict(trained.predictor, packed, test, trained.conf["batch_size"])
        results[test] = scorer.tested(predictions, trained.postprocessing) | {
            "validation_score": trained.validation_score,
            "epoch": trained.epoch,
            "time_in_min": trained.time_in_min,
        }
    if len(results) > 1:
        results["aggregated_scores"] = aggregate_test_results(results)
    return results | {
        "hparams": hparams_to_json(best.conf),
        "postprocessing": [list(argument) for argument in best.postprocessing],
        "score_mode": scorer.mode,
        "embedding_path": packed.task.name,
    }


def _train_in_turn(
    packed: PackedTask, trainings: Sequence[Training], scorer: Scorer
) -> Iterator[TrainedPredictor]:
    for data_split, conf in trainings:
        yield train(packed, data_split, conf, scorer)


def _refuse_a_batch_of_one(packed: PackedTask, splits: list[str], batch_size: int) -> None:
    n_rows = sum(packed.splits[split].stop - packed.splits[split].start for split in splits)
    if n_rows % batch_size == 1 or batch_size == 1:
        raise ValueError(
            f"{packed.task.name}: the training splits {', '.join(splits)} have {n_rows} rows, so "
            f"that the last batch of {batch_size} is a single row, over which batch normalisation "
            f"is not defined. heareval cannot train on them either; leave out or add a clip"
        )


@contextmanager
def _random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for a while; the protocol draws from no others."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
