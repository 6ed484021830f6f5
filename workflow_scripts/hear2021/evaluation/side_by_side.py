"""Training of several predictors at once, for a GPU that one small network leaves idle.

The same networks, optimiser and stopping rules as in `training`, each predictor with its own; what
is shared is the launch of the kernels: predictors of one shape are one network whose tensors have
one dimension more. Each gets its own draws of initialisation and dropout, in another order than
heareval's, so that results equal heareval's in distribution and not digit by digit.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from workflow_scripts.hear2021.evaluation.adam import BETAS, EPSILON
from workflow_scripts.hear2021.evaluation.heareval_definitions import FullyConnectedPrediction
from workflow_scripts.hear2021.evaluation.packing import PackedTask
from workflow_scripts.hear2021.evaluation.scoring import Postprocessing, Predictions, Scorer
from workflow_scripts.hear2021.evaluation.training import (
    BestEpoch,
    Conf,
    TrainedPredictor,
    Training,
    new_predictor,
)

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Member:
    """One of the predictors trained side by side, and how far it has come.

    Attributes:
        conf: its grid point.
        predictor: heareval's FullyConnectedPrediction; has the best epoch's parameters at the end.
        batches: rows and targets of each training step of an epoch.
        valid: the split to validate on.
        best: the epoch kept.
        best_postprocessing: chosen at that epoch.
    """

    conf: Conf
    predictor: FullyConnectedPrediction
    batches: Sequence[Batch]
    valid: str
    best: BestEpoch
    best_postprocessing: Postprocessing = ()

    @property
    def stack_key(self) -> tuple[Any, ...]:
        """Equal for members that can be one stack."""
        schedule = ("batch_size", "max_epochs", "check_val_every_n_epoch")
        return (repr(self.predictor), *(self.conf[name] for name in schedule))


class Adams:
    """An Adam a member, torch.optim.Adam with its defaults, that change their parameters in place.

    torch's fused kernel goes once over what Adam's formula in torch's operations goes over thrice,
    for all members of one learning rate at a time.

    Args:
        parameters: of all members, (n_members, n_parameters).
        rates: the learning rate of each member.
    """

    def __init__(self, parameters: torch.Tensor, rates: Sequence[float]) -> None:
        self._rates = list(rates)
        # float32 whatever the default: the kernel on a GPU reads that and does not ask.
        steps = torch.zeros(len(rates), dtype=torch.float32, device=parameters.device)
        first, second = (torch.zeros_like(parameters, requires_grad=False) for _ in range(2))
        self._state = first, second, steps
        self._attach(parameters)

    def _attach(self, parameters: torch.Tensor) -> None:
        rows = (tensor.unbind() for tensor in (parameters.detach(), *self._state))
        self._parameters, self._first, self._second, self._steps = rows

    def keep(self, kept: list[int], parameters: torch.Tensor) -> None:
        """Go on with some members, whose parameters are the rows of `parameters` now."""
        self._rates = [self._rates[i] for i in kept]
        first, second, steps = (tensor[kept] for tensor in self._state)
        self._state = first, second, steps
        self._attach(parameters)

    def step(self, gradient: torch.Tensor, members: Sequence[int]) -> None:
        """Change the parameters of some members by their rows of the gradient."""
        gradients = gradient.unbind()
        torch._foreach_add_([self._steps[i] for i in members], 1)
        of_rate: dict[float, list[int]] = defaultdict(list)
        for i in members:
            of_rate[self._rates[i]].append(i)
        for rate, chosen in of_rate.items():
            torch._fused_adam_(
                [self._parameters[i] for i in chosen],
                [gradients[i] for i in chosen],
                [self._first[i] for i in chosen],
                [self._second[i] for i in chosen],
                [],
                [self._steps[i] for i in chosen],
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )


class Stack:
    """Predictors of one shape as one network.

    Activations are (n_members, n_features, n_rows): a linear layer is one batched product, and
    batch norm goes over the features of all members at once.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        first = members[0].predictor
        self.members = list(members)
        self._layers: dict[str, torch.nn.Module] = {
            f"hidden.{name}": layer for name, layer in first.hidden.named_children()
        }
        self._layers["projection"] = first.projection
        self._shapes = {name: p.shape for name, p in first.named_parameters()}
        vectors = [parameters_to_vector(m.predictor.parameters()).detach() for m in members]
        self._parameters = torch.stack(vectors).requires_grad_()
        self._buffers = {
            name: torch.stack([member.predictor.get_buffer(name) for member in members])
            for name, _ in first.named_buffers()
        }
        self._adams = Adams(self._parameters, [member.conf["lr"] for member in members])
        self._indices: dict[tuple[int, ...], torch.Tensor] = {}

    def train_epoch(self) -> None:
        """Take all steps of an epoch; members whose batches have equal lengths step together."""
        for step in range(max(len(member.batches) for member in self.members)):
            together: dict[int, list[int]] = defaultdict(list)
            for i, member in enumerate(self.members):
                if step < len(member.batches):
                    together[len(member.batches[step][0])].append(i)
            for chosen in together.values():
                self._step(chosen, [self.members[i].batches[step] for i in chosen])

    def _step(self, chosen: list[int], batches: Sequence[Batch]) -> None:
        if all(batch is batches[0] for batch in batches):
            rows, targets = map(self._on_device, batches[0])
            rows, targets = (part.expand(len(chosen), *part.shape) for part in (rows, targets))
        else:
            rows, targets = (
                torch.stack([self._on_device(part) for part in parts])
                for parts in zip(*batches, strict=True)
            )
        logits = self._logits(rows, chosen, training=True)
        if targets.is_floating_point():  # multilabel: one target a label
            targets = targets.transpose(1, 2)
        # heareval's loss is a mean; over all members it is the mean of theirs.
        loss = self.members[0].predictor.logit_loss(logits, targets) * len(chosen)
        (gradient,) = torch.autograd.grad(loss, self._parameters)
        self._adams.step(gradient, chosen)

    def _index(self, chosen: list[int]) -> torch.Tensor:
        """Return some members as an index on the device, sent there once."""
        key = tuple(chosen)
        if key not in self._indices:
            self._indices[key] = torch.tensor(key, device=self._parameters.device)
        return self._indices[key]

    def _on_device(self, part: torch.Tensor) -> torch.Tensor:
        """Return rows that may have stayed in host memory, `PackedTask.rows`."""
        return part.to(self._parameters.device, non_blocking=True)

    def _is_everyone(self, chosen: list[int]) -> bool:
        return len(chosen) == len(self.members)

    def _logits(self, rows: torch.Tensor, chosen: list[int], *, training: bool) -> torch.Tensor:
        """Return logits (n_chosen, n_labels, n_rows) for rows (n_chosen, n_rows, size)."""
        everyone = self._is_everyone(chosen)
        vectors = self._parameters
        if not everyone:
            vectors = vectors.index_select(0, self._index(chosen))
        split = vectors.split([shape.numel() for shape in self._shapes.values()], dim=1)
        of = {
            name: part.view(len(chosen), *shape)
            for part, (name, shape) in zip(split, self._shapes.items(), strict=True)
        }
        x = rows.transpose(1, 2)
        for name, layer in self._layers.items():
            if isinstance(layer, torch.nn.Linear):
                x = torch.baddbmm(of[f"{name}.bias"][..., None], of[f"{name}.weight"], x)
            elif isinstance(layer, torch.nn.BatchNorm1d):
                assert layer.momentum is not None  # which would be a cumulative average
                statistics = [
                    self._buffers[f"{name}.{kind}"] for kind in ("running_mean", "running_var")
                ]
                mean, variance = (s if everyone else s[self._index(chosen)] for s in statistics)
                # torch.nn.functional.batch_norm would take cuDNN's, which is slow for this shape.
                normed, _, _ = torch.native_batch_norm(
                    x.reshape(1, -1, x.shape[-1]),
                    of[f"{name}.weight"].reshape(-1),
                    of[f"{name}.bias"].reshape(-1),
                    mean.view(-1),
                    variance.view(-1),
                    training,
                    layer.momentum,
                    layer.eps,
                )
                x = normed.view_as(x)
                if training and not everyone:
                    for whole, part in zip(statistics, (mean, variance), strict=True):
                        whole[self._index(chosen)] = part
            else:  # of single values: dropout, ReLU
                x = layer.train(training)(x)
        return x

    @torch.no_grad()
    def predict(self, chosen: list[int], packed: PackedTask, split: str) -> list[Predictions]:
        """Return the predictions of some members for all rows of a split."""
        first = self.members[0]
        batches = packed.batches([split], first.conf["batch_size"])
        logits = torch.cat(
            [
                self._logits(rows.expand(len(chosen), *rows.shape), chosen, training=False)
                for rows in (self._on_device(rows) for rows, _ in batches)
            ],
            dim=2,
        ).transpose(1, 2)
        return [Predictions(split, one, first.predictor.activation(one)) for one in logits]

    @torch.no_grad()
    def give_back(self, i: int) -> None:
        """Give a member's predictor the parameters as they are now."""
        predictor = self.members[i].predictor
        # A copy: the predictor's parameters become views of it.
        vector_to_parameters(self._parameters[i].clone(), predictor.parameters())
        for name, values in self._buffers.items():
            predictor.get_buffer(name).copy_(values[i])

    @torch.no_grad()
    def keep(self, kept: list[int]) -> None:
        """Go on with some of the members only."""
        if self._is_everyone(kept):
            return
        self._indices.clear()
        self.members = [self.members[i] for i in kept]
        self._parameters = self._parameters[kept].requires_grad_()
        self._buffers = {name: values[kept] for name, values in self._buffers.items()}
        self._adams.keep(kept, self._parameters)


def train_side_by_side(
    packed: PackedTask, trainings: Sequence[Training], scorer: Scorer
) -> Iterator[TrainedPredictor]:
    """Train a predictor for each (data split, grid point), those of one shape at once.

    Memory on the device, besides the packed task: for each predictor its parameters six times
    (gradients, twice as they come to be, Adam's two moments, the best epoch), and its batch where
    batches differ.

    Args:
        packed: rows and targets.
        trainings: what to train on and how.
        scorer: the task's scores.

    Returns:
        The predictors in the order of `trainings`; `time_in_min` is that of all together.

    Raises:
        ValueError: if a predictor was not validated within its grid point's `max_epochs`.
    """
    started = time.monotonic()
    members = _members(packed, trainings, scorer)
    stacks: dict[tuple[Any, ...], list[Member]] = defaultdict(list)
    for member in members:
        stacks[member.stack_key].append(member)
    for stacked in stacks.values():
        _train(Stack(stacked), packed, scorer)
    for member in members:
        if member.best.epoch is None:
            raise ValueError(
                f"{packed.task.name}: no validation within {member.conf['max_epochs']} epochs"
            )
        yield TrainedPredictor(
            predictor=member.predictor.eval(),
            conf=member.conf,
            epoch=member.best.epoch,
            validation_score=member.best.value,
            score_mode=scorer.mode,
            postprocessing=member.best_postprocessing,
            time_in_min=(time.monotonic() - started) / 60,
        )


def _members(packed: PackedTask, trainings: Sequence[Training], scorer: Scorer) -> list[Member]:
    batches: dict[tuple[str | int, ...], list[Batch]] = {}
    members = []
    for data_split, conf in trainings:
        rows = (*data_split["train"], conf["batch_size"])
        if rows not in batches:
            batches[rows] = packed.batches(data_split["train"], conf["batch_size"])
        (valid,) = data_split["valid"]
        members.append(
            Member(
                conf=conf,
                predictor=new_predictor(packed, conf).to(packed.device),
                batches=batches[rows],
                valid=valid,
                best=BestEpoch(scorer.mode, conf["patience"]),
            )
        )
    return members


def _train(stack: Stack, packed: PackedTask, scorer: Scorer) -> None:
    conf = stack.members[0].conf
    for epoch in itertools.count():
        if not stack.members or epoch == conf["max_epochs"]:
            break
        stack.train_epoch()
        if (epoch + 1) % conf["check_val_every_n_epoch"] == 0:
            _validate(stack, epoch, packed, scorer)
            stack.keep([i for i, member in enumerate(stack.members) if not member.best.stopped])


def _validate(stack: Stack, epoch: int, packed: PackedTask, scorer: Scorer) -> None:
    by_split: dict[str, list[int]] = defaultdict(list)
    for i, member in enumerate(stack.members):
        by_split[member.valid].append(i)
    for split, chosen in by_split.items():
        predictions = stack.predict(chosen, packed, split)
        for i, one in zip(chosen, predictions, strict=True):
            member = stack.members[i]
            value, postprocessing = scorer.monitored(one)
            if member.best.update(epoch, value):
                stack.give_back(i)
                member.best_postprocessing = postprocessing
