"""Predictors trained as one stack go the way each goes alone, but for their random draws."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.test_protocol import FOLDS, SINGLE, scene_task
from workflow_scripts.hear2021.evaluation.adam import Adam
from workflow_scripts.hear2021.evaluation.packing import pack
from workflow_scripts.hear2021.evaluation.protocol import get_splits_from_metadata, grid
from workflow_scripts.hear2021.evaluation.scoring import Scorer
from workflow_scripts.hear2021.evaluation.side_by_side import Stack, _members, train_side_by_side
from workflow_scripts.hear2021.evaluation.training import predict

WITHOUT_DROPOUT = {"dropout": [0.0], "hidden_dim": [16], "batch_size": [64]}


def packed_task(kind: str):
    """A packed task whose folds, or whose last batch, give steps of different lengths."""
    if kind == "folds":
        metadata = {"prediction_type": "multiclass", "split_mode": "new_split_kfold"}
        embedded = scene_task(FOLDS, evaluation=["top1_acc"], **metadata)
    else:
        embedded = multilabel_task()
    embedded.task.metadata["evaluation_params"]["task_specific_param_grid"] |= WITHOUT_DROPOUT
    packed = pack(embedded)
    # In double precision: Adam makes whole steps of the rounding errors of gradients that are zero.
    active = packed.active.double()
    targets = packed.targets if kind == "folds" else active
    return dataclasses.replace(packed, rows=packed.rows.double(), active=active, targets=targets)


def multilabel_task():
    return scene_task(SINGLE, prediction_type="multilabel", evaluation=["mAP"])


def members_of(packed, kind: str):
    """The members of a stack, with the same initial values each time."""
    torch.manual_seed(0)
    members = _members(packed, trainings(packed, kind), Scorer(packed))
    for member in members:
        member.predictor.double()
    return members


def trainings(packed, kind: str):
    """Three grid points of one shape on the first data split, or one of them on three folds."""
    splits = get_splits_from_metadata(packed.task.metadata)
    confs = [conf for conf in grid(packed.task.metadata, seed=42) if conf["hidden_layers"] == 2]
    if kind == "folds":
        return [(split, confs[0]) for split in splits[:3]]
    return [(splits[0], conf) for conf in confs[:3]]


def alone(member, epochs: int):
    """The member's predictor after so many epochs of the plain loop."""
    predictor = member.predictor
    optimizer = Adam(predictor.parameters(), lr=member.conf["lr"])
    predictor.train()
    for _ in range(epochs):
        for rows, targets in member.batches:
            loss = predictor.logit_loss(predictor.forward_logit(rows), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return predictor.eval()


@pytest.mark.parametrize("kind", ["folds", "grid points"])
def test_each_member_learns_what_it_learns_alone(kind):
    packed = packed_task(kind)
    members = members_of(packed, kind)
    assert len({len(rows) for member in members for rows, _ in member.batches}) > 1
    stack = Stack(members)
    for _ in range(5):
        stack.train_epoch()
    for i, same in enumerate(members_of(packed, kind)):
        expected = alone(same, epochs=5)
        stack.give_back(i)
        assert_same_state(members[i].predictor, expected)


def assert_same_state(found, expected):
    for name, values in expected.state_dict().items():
        if "num_batches" not in name:  # which nothing uses
            torch.testing.assert_close(found.state_dict()[name], values, rtol=1e-6, atol=1e-6)


def test_a_member_that_has_stopped_leaves_the_others_as_they_are():
    packed = packed_task("grid points")
    last = []
    for leaves in (False, True):
        members = members_of(packed, "grid points")
        stack = Stack(members)
        stack.train_epoch()
        if leaves:
            stack.keep([2])  # whose learning rate is not the first one's
        stack.train_epoch()
        stack.give_back(len(stack.members) - 1)
        last.append(members[2].predictor)
    assert_same_state(*last)


def test_what_a_predictor_was_given_does_not_change_as_training_goes_on():
    packed = packed_task("grid points")
    members = members_of(packed, "grid points")
    stack = Stack(members)
    stack.train_epoch()
    stack.give_back(0)
    before = {name: v.clone() for name, v in members[0].predictor.state_dict().items()}
    stack.train_epoch()
    for name, values in members[0].predictor.state_dict().items():
        assert torch.equal(values, before[name]), name


def test_a_stack_predicts_as_its_predictors_do():
    packed = packed_task("folds")
    members = members_of(packed, "folds")
    stack = Stack(members)
    stack.train_epoch()
    for i, found in enumerate(stack.predict([0, 1, 2], packed, "fold03")):
        stack.give_back(i)
        expected = predict(members[i].predictor, packed, "fold03", 1024)
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.probabilities, expected.probabilities)


def test_members_of_other_shapes_are_trained_too():
    packed = pack(multilabel_task())
    split = get_splits_from_metadata(packed.task.metadata)[0]
    confs = grid(packed.task.metadata, seed=42)[:4]
    trained = list(train_side_by_side(packed, [(split, conf) for conf in confs], Scorer(packed)))
    assert [one.conf for one in trained] == confs
    assert {one.conf["hidden_layers"] for one in trained} == {1, 2}
    assert np.mean([one.validation_score for one in trained]) > 0.5
