"""The clothes-adversarial loss and who is told who wears what."""

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
from helpers.small import small_config

from sptskm.common.errors import ConfigError
from sptskm.extraction import load_network
from sptskm.training.losses import clothes_adversarial_loss, clothes_loss
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.trainer import train
from sptskm.training.world import World

OWNER = np.array([0, 0, 1, 2, 2, 2])  # person of each outfit
WORN = [1, 2, 5, -1]
COSINES = np.random.default_rng(0).uniform(-1, 1, (4, 6))


def ranges(worn):
    """First outfit and number of outfits of the wearer of each; person 0 where the outfit is unknown."""
    people = [OWNER[outfit] if outfit >= 0 else 0 for outfit in worn]
    return [torch.tensor(x) for x in ([int(np.argmax(p == OWNER)) for p in people], [sum(p == OWNER) for p in people])]


def test_the_adversarial_loss_is_the_published_sum():
    total = 0.0
    for cosines, outfit in zip(16 * COSINES[:3], WORN[:3], strict=True):
        own = np.flatnonzero(OWNER[outfit] == OWNER)
        others = sum(exp(cosines[c]) for c in range(6) if c not in own)
        for c in own:
            share = 0.1 / len(own) + 0.9 * (c == outfit)
            total -= share * log(exp(cosines[c]) / (exp(cosines[c]) + others))
    found = clothes_adversarial_loss(torch.tensor(COSINES), torch.tensor(WORN), *ranges(WORN))
    assert float(found) == pytest.approx(total / 4), "an unknown outfit counts as 0"


def test_the_classifier_of_outfits_has_the_cross_entropy_of_known_ones():
    shares = torch.tensor(16 * COSINES).log_softmax(1)
    expected = -(shares[0, 1] + shares[1, 2] + shares[2, 5]) / 4
    assert float(clothes_loss(torch.tensor(COSINES), torch.tensor(WORN))) == pytest.approx(float(expected))


def test_batches_without_a_known_outfit_and_data_of_one_person_have_no_nan():
    cosines = torch.rand(2, 3, requires_grad=True)
    unknown, zeros = torch.tensor([-1, -1]), torch.tensor([0, 0])
    loss = clothes_loss(cosines, unknown) + clothes_adversarial_loss(cosines, unknown, zeros, zeros)
    loss = loss + clothes_adversarial_loss(cosines, zeros, zeros, torch.tensor([3, 3]))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert cosines.grad.isfinite().all()


def test_labels_hold_the_outfit_and_the_range_of_its_wearers_outfits(walkers, tmp_path):
    setup = Setup.of(small_config("ssin", walkers, tmp_path / "run", "loss.clothes=1"), World())
    rows = torch.from_numpy(setup.split.train)
    labels = setup.labels(rows)
    for row, (identity, outfit, first, count) in zip(rows.tolist(), labels.tolist(), strict=True):
        pid = setup.table.pids_N[row]
        assert setup.split.classes[identity] == pid
        assert setup.outfits[outfit].tolist() == [pid, setup.table.clothes_N[row]]
        assert (setup.outfits[first : first + count, 0] == pid).all()
        assert (setup.outfits[:, 0] == pid).sum() == count
    plain = Setup.of(small_config("ssin", walkers, tmp_path / "run"), World())
    assert plain.labels(rows).equal(labels[:, 0])


def test_data_without_clothes_labels_are_refused_in_a_sentence(walkers, tmp_path):
    setup = Setup.of(small_config("ssin", walkers, tmp_path / "run", "loss.clothes=0.5"), World())
    nothing = replace(setup, table=replace(setup.table, clothes_N=np.full(len(setup.table), -1)))
    with pytest.raises(ConfigError, match=r"loss.clothes is 0.5, but no training tracklet of .* wanted clothes labels"):
        nothing.network(pretrained=False)


def test_a_run_with_it_learns_outfits_and_its_network_is_used_without_them(walkers, tmp_path):
    config = small_config("ssin", walkers, tmp_path / "run", "loss.clothes=0.5", "train.epochs=1")
    assert train(config).finished
    assert "clothes_cls.weight" in RunDir(tmp_path / "run").trained()["model"]
    assert "clothes_cls.weight" not in load_network(tmp_path / "run").model.state_dict()
