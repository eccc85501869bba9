"""Weights of streams by held-out people whose clothes are known: what tells people in other clothes counts."""

import numpy as np
import pytest
from helpers.pairs import of_pair, part_with

from sptskm.evaluation import Distances, Fusion, Part, Rows, StreamDistances, choose
from sptskm.evaluation.weighing import CHANGING

PEOPLE = 12


def chosen(clothes_G: np.ndarray | None) -> Fusion:
    """Choose for queries in clothes 0; each person has three tracklets of the gallery, in these clothes (G,).

    SSIN tells a person in the clothes of the first tracklet, whatever the labels say; SMIN tells all persons less well.
    """
    rng = np.random.default_rng(1)
    pids_G = np.repeat(np.arange(PEOPLE), 3)
    query = Rows(np.arange(PEOPLE), np.zeros(PEOPLE, int), None if clothes_G is None else np.zeros(PEOPLE, int))
    gallery = Rows(pids_G, np.ones(len(pids_G), int), clothes_G)
    other_QG = query.pids[:, None] != pids_G
    dressed_QG = other_QG | (np.arange(len(pids_G)) % 3 > 0)
    flags = np.ones(PEOPLE, bool), np.ones(len(pids_G), bool)
    told = {"ssin": 3.0 * dressed_QG, "smin": 1.0 * other_QG}
    given = {name: Distances(told_QG + rng.random(told_QG.shape), *flags) for name, told_QG in told.items()}
    return choose([part_with(query, gallery, StreamDistances(given))], ["zscore"], step=0.5)


def test_a_part_in_which_a_stream_has_no_ranked_pair_takes_no_weight_from_it():
    rng = np.random.default_rng(1)

    pids = np.arange(PEOPLE)
    query = Rows(pids, np.zeros(PEOPLE, int))
    gallery = Rows(np.append(pids, [0, 0]), np.append(np.ones(PEOPLE, int), [0, 0]))

    def part(smin_Q: np.ndarray, smin_G: np.ndarray) -> Part:
        told_QG = query.pids[:, None] != gallery.pids
        ssin, smin = (told_QG + rng.random(told_QG.shape) for _ in "12")
        return part_with(query, gallery, of_pair(ssin, smin, smin_Q, smin_G))

    alone = part(pids == 0, np.arange(len(gallery)) >= PEOPLE)  # two pairs of one person and camera
    assert choose([part(pids >= 0, gallery.pids >= 0), alone], ["zscore"], step=0.5).weights["smin"] > 0.2


def worn(first: int, people: int = PEOPLE) -> np.ndarray:
    """Clothes of the gallery (G,): `first`, 1 and 2 of the first `people`; others are always in 0, as their queries."""
    clothes_G = np.tile([first, 1, 2], PEOPLE)
    clothes_G[3 * people :] = 0
    return clothes_G


def test_a_stream_that_tells_clothes_has_no_share_where_people_are_seen_in_others():
    assert chosen(None).weights["ssin"] > 0.2
    assert chosen(worn(0)).weights["ssin"] < 0.05
    assert [chosen(None).changed_clothes, chosen(worn(0)).changed_clothes] == [False, True]


def test_people_in_one_set_of_clothes_have_no_say_beside_those_who_are_seen_in_several():
    assert chosen(worn(0, CHANGING)).weights["ssin"] < 0.05


@pytest.mark.parametrize(
    "clothes_G", [worn(0, CHANGING - 1), np.zeros(3 * PEOPLE, int), np.full(3 * PEOPLE, -1)], ids=["few", "one", "none"]
)
def test_where_hardly_anybody_is_known_to_change_clothes_all_pairs_count(clothes_G: np.ndarray):
    found = chosen(clothes_G)
    assert (found.weights, found.changed_clothes) == (chosen(None).weights, False)


def test_where_all_pairs_of_a_person_are_in_other_clothes_labels_change_nothing():
    assert chosen(worn(3)).weights == chosen(None).weights
