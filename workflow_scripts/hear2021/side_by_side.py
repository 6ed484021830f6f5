"""Training of several predictors at once, for a GPU that one small network leaves idle.

The same networks, optimisers and stopping rules as in `training`, each predictor with its own; what
is shared is the launch of the matrix products: at every step the predictors of one shape, with
batches of one size, go through the network as one stack (torch.func.vmap). Each gets its own draws
of initialisation and dropout, in another order than heareval's, so that results equal heareval's in
distribution and not digit by digit.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.func import functional_call, vmap

from workflow_scripts.hear2021.heareval_definitions import FullyConnectedPrediction
from workflow_scripts.hear2021.packing import PackedTask
from workflow_scripts.hear2021.scoring import Postprocessing, Scorer
from workflow_scripts.hear2021.training import (
    BestEpoch,
    Conf,
    TrainedPredictor,
    Training,
    new_predictor,
    predict,
)

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Member:
    """One of the predictors trained side by side, and how far it has come.

    Attributes:
        predictor: heareval's FullyConnectedPrediction.
        logits: its layers up to the logits, as one module; shares the predictor's parameters.
        shape: equal for predictors that can be stacked.
        batches: rows and targets of each training step of an epoch.
        valid: the split to validate on.
    """

    conf: Conf
    predictor: FullyConnectedPrediction
    logits: torch.nn.Module
    shape: str
    optimizer: torch.optim.Optimizer
    batches: Sequence[Batch]
    valid: str
    best: BestEpoch
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    best_postprocessing: Postprocessing = ()

    def trains_in(self, epoch: int) -> bool:
        """Return whether the predictor is still trained in this epoch."""
        return not self.best.stopped and epoch < self.conf["max_epochs"]

    def is_validated_after(self, epoch: int) -> bool:
        """Return whether the predictor is validated at the end of this epoch."""
        return (epoch + 1) % self.conf["check_val_every_n_epoch"] == 0


def train_side_by_side(
    packed: PackedTask, trainings: Sequence[Training], scorer: Scorer
) -> Iterator[TrainedPredictor]:
    """Train a predictor for each (data split, grid point), all at once.

    Memory on the device, besides the packed task: for each predictor its parameters six times
    (gradients, Adam's two moments, the stack, the best epoch), and its batch where batches differ.

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
    for epoch in itertools.count():
        training = [member for member in members if member.trains_in(epoch)]
        if not training:
            break
        for member in training:
            member.predictor.train()
        for step in range(max(len(member.batches) for member in training)):
            _step(training, step)
        for member in training:
            if member.is_validated_after(epoch):
                _validate(member, epoch, packed, scorer)
    for member in members:
        if member.best.epoch is None:
            raise ValueError(
                f"{packed.task.name}: no validation within {member.conf['max_epochs']} epochs"
            )
        member.predictor.load_state_dict(member.best_state)
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
    device = packed.rows.device
    batches: dict[tuple[str | int, ...], list[Batch]] = {}
    members = []
    for data_split, conf in trainings:
        predictor = new_predictor(packed, conf).to(device)
        rows = (*data_split["train"], conf["batch_size"])
        if rows not in batches:
            batches[rows] = packed.batches(data_split["train"], conf["batch_size"])
        (valid,) = data_split["valid"]
        members.append(
            Member(
                conf=conf,
                predictor=predictor,
                logits=torch.nn.Sequential(predictor.hidden, predictor.projection),
                shape=repr(predictor),
                optimizer=conf["optim"](
                    predictor.parameters(), lr=conf["lr"], fused=device.type == "cuda"
                ),
                batches=batches[rows],
                valid=valid,
                best=BestEpoch(scorer.mode, conf["patience"]),
            )
        )
    return members


def _step(members: Sequence[Member], step: int) -> None:
    """Take one optimiser step of every member that has a batch left in this epoch."""
    stacks: dict[tuple[str, int], list[Member]] = defaultdict(list)
    for member in members:
        if step < len(member.batches):
            n_rows = len(member.batches[step][0])
            stacks[member.shape, n_rows].append(member)
    for stack in stacks.values():
        loss = _losses(stack, [member.batches[step] for member in stack]).sum()
        for member in stack:
            member.optimizer.zero_grad()
        loss.backward()
        for member in stack:
            member.optimizer.step()


def _losses(stack: Sequence[Member], batches: Sequence[Batch]) -> torch.Tensor:
    """Return each member's loss on its batch, (n_members,), and update its running statistics."""
    first = stack[0]
    parameters = {
        name: torch.stack([member.logits.get_parameter(name) for member in stack])
        for name, _ in first.logits.named_parameters()
    }
    buffers = {
        name: torch.stack([member.logits.get_buffer(name) for member in stack])
        for name, _ in first.logits.named_buffers()
    }

    def loss(
        parameters: dict[str, torch.Tensor],
        buffers: dict[str, torch.Tensor],
        rows: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        logits = functional_call(first.logits, (parameters, buffers), (rows,))
        return first.predictor.logit_loss(logits, targets)

    if all(batch is batches[0] for batch in batches):
        of_batch, (rows, targets) = None, batches[0]
    else:
        of_batch = 0
        rows = torch.stack([rows for rows, _ in batches])
        targets = torch.stack([targets for _, targets in batches])
    losses = vmap(loss, in_dims=(0, 0, of_batch, of_batch), randomness="different")(
        parameters, buffers, rows, targets
    )
    with torch.no_grad():
        for name, values in buffers.items():
            for member, value in zip(stack, values, strict=True):
                member.logits.get_buffer(name).copy_(value)
    return losses


def _validate(member: Member, epoch: int, packed: PackedTask, scorer: Scorer) -> None:
    predictions = predict(member.predictor, packed, member.valid, member.conf["batch_size"])
    value, postprocessing = scorer.monitored(predictions)
    if member.best.update(epoch, value):
        state = member.predictor.state_dict()
        member.best_state = {name: tensor.clone() for name, tensor in state.items()}
        member.best_postprocessing = postprocessing
