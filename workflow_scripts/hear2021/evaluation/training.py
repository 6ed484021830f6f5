"""Training of one predictor: heareval's loop, with its random draws in its order.

What heareval leaves to PyTorch Lightning 1.9 (epochs, early stopping, the checkpoint kept) is a
plain loop here. Batches are views of the packed rows, which are on the device before it starts
wherever they have room there.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torchinfo

from workflow_scripts.hear2021.evaluation.adam import fastest_adam
from workflow_scripts.hear2021.evaluation.dropout import draw_at_once
from workflow_scripts.hear2021.evaluation.heareval_definitions import FullyConnectedPrediction
from workflow_scripts.hear2021.evaluation.packing import PackedTask
from workflow_scripts.hear2021.evaluation.products import TELLING_OUTPUTS, multiply_in_blocks
from workflow_scripts.hear2021.evaluation.scoring import Postprocessing, Predictions, Scorer

PROBE_ROWS = 64

Conf = dict[str, Any]
"""A grid point of heareval."""

DataSplit = dict[str, list[str]]
"""The names of the splits for "train", "valid" and "test", as heareval gives them."""

Training = tuple[DataSplit, Conf]
"""What is trained on, and how."""


@dataclass(frozen=True)
class TrainedPredictor:
    """A predictor as it was at its best epoch, and how it came about.

    Attributes:
        predictor: heareval's FullyConnectedPrediction, in evaluation mode.
        conf: the grid point, heareval's dictionary.
        epoch: the best epoch, from 0.
        validation_score: the monitored value at that epoch.
        score_mode: "max" or "min", what is better in it.
        postprocessing: chosen at that epoch.
        time_in_min: minutes of training.
    """

    predictor: FullyConnectedPrediction
    conf: Conf
    epoch: int
    validation_score: float
    score_mode: str
    postprocessing: Postprocessing
    time_in_min: float


class BestEpoch:
    """The epoch to keep and when to stop, as Lightning 1.9's ModelCheckpoint and EarlyStopping.

    The earliest of equally good epochs is kept. A value that is not finite stops the training; a
    NaN is kept only where it is the first value, as the worst possible one.
    """

    def __init__(self, mode: str, patience: int) -> None:
        self.epoch: int | None = None
        self.value = math.nan
        self.stopped = False
        self._sign = 1.0 if mode == "max" else -1.0
        self._patience = patience
        self._best = -math.inf
        self._without_improvement = 0

    def update(self, epoch: int, value: float) -> bool:
        """Take in the value of a validation; return whether its epoch is now the best."""
        signed = self._sign * value
        if not math.isfinite(value):
            self.stopped = True
        elif signed > self._best:
            self._best = signed
            self._without_improvement = 0
        else:
            self._without_improvement += 1
            self.stopped = self._without_improvement >= self._patience
        if self.epoch is not None and not signed > self._sign * self.value:
            return False
        self.epoch = epoch
        self.value = -self._sign * math.inf if math.isnan(value) else value
        return True


def train(
    packed: PackedTask, data_split: DataSplit, conf: Conf, scorer: Scorer
) -> TrainedPredictor:
    """Train one predictor on the splits `data_split["train"]`, validated on `["valid"]`.

    Draws from torch's global generator what heareval draws, in its order: the initialisation, the
    input of torchinfo's probe, one number each time a split is gone through, dropout.

    Args:
        packed: rows and targets.
        data_split: which splits to train on and to validate on.
        conf: the grid point.
        scorer: the task's scores.

    Raises:
        ValueError: if no validation happened within the grid point's `max_epochs`.
    """
    started = time.monotonic()
    predictor = new_predictor(packed, conf).to(packed.device)
    batches = packed.batches(data_split["train"], conf["batch_size"])
    (valid,) = data_split["valid"]
    if packed.device.type == "cpu":
        validation = packed.batches([valid], conf["batch_size"])
        batch_sizes = {len(rows) for rows, _ in [*batches, *validation]}
        lay_out_by_input(predictor, batch_sizes)
        multiply_in_blocks(predictor, batch_sizes)
        n_rows = sum(len(rows) for rows, _ in batches)
        draw_at_once(predictor, n_rows * conf["hidden_dim"] * conf["hidden_layers"])
    optimizer = fastest_adam(
        predictor.parameters(), lr=conf["lr"]
    )  # conf["optim"], see protocol.grid
    best = BestEpoch(scorer.mode, conf["patience"])
    best_state: dict[str, torch.Tensor] = {}
    best_postprocessing: Postprocessing = ()
    for epoch in range(conf["max_epochs"]):
        _draw_as_a_data_loader()
        predictor.train()
        for rows, targets in batches:
            logits = predictor.forward_logit(packed.on_device(rows))
            loss = predictor.logit_loss(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (epoch + 1) % conf["check_val_every_n_epoch"] == 0:
            _draw_as_a_data_loader()
            predictions = predict(predictor, packed, valid, conf["batch_size"])
            value, postprocessing = scorer.monitored(predictions)
            if best.update(epoch, value):
                best_state = {name: t.clone() for name, t in predictor.state_dict().items()}
                best_postprocessing = postprocessing
            if best.stopped:
                break
    if best.epoch is None:
        raise ValueError(f"{packed.task.name}: no validation within {conf['max_epochs']} epochs")
    predictor.load_state_dict(best_state)
    lay_out_by_output(predictor)
    return TrainedPredictor(
        predictor=predictor.eval(),
        conf=conf,
        epoch=best.epoch,
        validation_score=best.value,
        score_mode=scorer.mode,
        postprocessing=best_postprocessing,
        time_in_min=(time.monotonic() - started) / 60,
    )


def new_predictor(packed: PackedTask, conf: Conf) -> FullyConnectedPrediction:
    """Return an initialised predictor of heareval for a grid point, on the CPU."""
    size = packed.rows.shape[1]
    predictor = FullyConnectedPrediction(
        size, len(packed.task.labels), packed.task.prediction_type, conf
    )
    if isinstance(predictor.activation, torch.nn.Softmax):
        predictor.activation.dim = 1  # what torch takes for matrices if left open, with a warning
    # Of itself it would probe on a GPU wherever there is one.
    torchinfo.summary(predictor, input_size=(PROBE_ROWS, size), device="cpu", verbose=0)
    return predictor


@torch.no_grad()
def lay_out_by_input(predictor: FullyConnectedPrediction, n_rows: Iterable[int]) -> bool:
    """Lay out the first layer's weights by input instead of by output, if no bit changes.

    For a predictor on a CPU, and batches of `n_rows`.

    autograd computes a gradient in the layout of its parameter. By output its rows are as long as
    an embedding, and a matrix product writes rows that are no multiple of a cache line's 16 values
    at little over half of its speed; by input they are as long as the hidden layer. (911 values,
    240 rows, one thread: 9.2 ms by output, 5.5 ms by input.)

    Returns:
        Whether the layout was changed.
    """
    first = _first_layer(predictor)
    shape, threads = (first.in_features, first.out_features), torch.get_num_threads()
    if first.out_features < TELLING_OUTPUTS or not all(
        _sums_alike_by_input(n, *shape, threads) for n in n_rows
    ):
        return False
    first.weight.data = first.weight.t().contiguous().t()
    return True


def lay_out_by_output(predictor: FullyConnectedPrediction) -> None:
    """Lay out the first layer's weights as heareval's: batches to come can be of other sizes."""
    first = _first_layer(predictor)
    first.weight.data = first.weight.data.contiguous()


def _first_layer(predictor: FullyConnectedPrediction) -> torch.nn.Linear:
    return next(layer for layer in predictor.modules() if isinstance(layer, torch.nn.Linear))


@cache
def _sums_alike_by_input(n_rows: int, n_inputs: int, n_outputs: int, threads: int) -> bool:
    """Try whether a layer's products sum in the same order in both layouts of its weights.

    That is up to the machine's matrix products, which may take another way for each size and each
    number of threads.
    """
    generator = torch.Generator().manual_seed(0)  # leaves the protocol's draws alone
    rows, weight, bias, gradient = (
        torch.randn(shape, generator=generator)
        for shape in ((n_rows, n_inputs), (n_outputs, n_inputs), n_outputs, (n_rows, n_outputs))
    )
    by_input = weight.t().contiguous()
    return torch.equal(
        torch.addmm(bias, rows, weight.t()), torch.addmm(bias, rows, by_input)
    ) and torch.equal(gradient.t().mm(rows), rows.t().mm(gradient).t())


def predict(
    predictor: FullyConnectedPrediction, packed: PackedTask, split: str, batch_size: int
) -> Predictions:
    """Return the predictions for all rows of a split; leaves the predictor in evaluation mode."""
    predictor.eval()
    with torch.inference_mode():
        logits = [
            predictor.forward_logit(packed.on_device(rows))
            for rows, _ in packed.batches([split], batch_size)
        ]
        probabilities = [predictor.activation(batch) for batch in logits]
        return Predictions(split, torch.cat(logits), torch.cat(probabilities))


def _draw_as_a_data_loader() -> None:
    """Draw the base seed that a torch DataLoader draws whenever it is iterated."""
    torch.empty((), dtype=torch.int64).random_()
