"""Protocols that ask who wears what: toys worked out by hand, and a walk down the list that knows clothes."""

import re

import numpy as np
import pytest

from sptskm.evaluation import PROTOCOLS, Rows, evaluate, feature_blocks, not_ranked, protocol, select

PROTOCOLS_OF_CCVID = ["ccvid-general", "ccvid-clothes-changing", "ccvid-same-clothes"]
OF_CLOTHES = PROTOCOLS_OF_CCVID[1:]

# One person (1) and another (2) in a gallery sorted by distance to a query of person 1, camera 1, outfit 5.
#               the query's camera   another person   own clothes   another person   other clothes
GALLERY = Rows([1, 2, 1, 2, 1], [1, 2, 2, 3, 3], [6, 5, 5, 5, 6])
DISTANCE = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])


def worn(pid: int, camid: int, clothes: int) -> Rows:
    return Rows([pid], [camid], [clothes])


@pytest.mark.parametrize(
    ("name", "ap", "first"),
    [
        # ranked: 2, 1 (own), 2, 1 (other); hits at 2 and 4
        ("ccvid-general", (1 / 2 + 2 / 4) / 2, 2),
        # ranked: 2, 2, 1 (other); one hit at 3
        ("ccvid-clothes-changing", 1 / 3, 3),
        # ranked: 2, 1 (own), 2; one hit at 2
        ("ccvid-same-clothes", 1 / 2, 2),
    ],
)
def test_a_toy_scores_as_by_hand(name, ap, first):
    scores = evaluate(DISTANCE, worn(1, 1, 5), GALLERY, PROTOCOLS[name])
    assert scores.mAP == pytest.approx(ap, abs=1e-12)
    assert scores.first_hit_Q.tolist() == [first]
    assert (scores.num_gallery, scores.protocol.name) == (5, name)


def test_clothes_of_other_people_do_not_matter():
    naked = Rows(GALLERY.pids, GALLERY.camids, np.where(GALLERY.pids == 2, 77, GALLERY.clothes))
    for name in PROTOCOLS_OF_CCVID:
        a, b = (evaluate(DISTANCE, worn(1, 1, 5), gallery, PROTOCOLS[name]) for gallery in (GALLERY, naked))
        assert a.ap_Q.tolist() == b.ap_Q.tolist()


def test_queries_without_a_positive_in_the_clothes_asked_for_are_skipped_and_counted():
    query = Rows([1, 1, 2], [1, 1, 1], [5, 6, 5])
    changing = evaluate(np.tile(DISTANCE, (3, 1)), query, GALLERY, PROTOCOLS["ccvid-clothes-changing"])
    assert (changing.num_queries, changing.num_skipped) == (2, 1), "2 has one outfit"
    assert np.isnan(changing.ap_Q).tolist() == [False, False, True]
    query = Rows([1, 1, 1], [1, 1, 1], [9, 5, 6])
    same = evaluate(np.tile(DISTANCE, (3, 1)), query, GALLERY, PROTOCOLS["ccvid-same-clothes"])
    assert (same.num_queries, same.num_skipped) == (2, 1), "nobody wears 9"


def test_unknown_clothes_are_neither_the_same_nor_others():
    unknown = Rows(GALLERY.pids, GALLERY.camids, [-1, 5, -1, 5, 6])
    assert evaluate(DISTANCE, worn(1, 1, 5), unknown, PROTOCOLS["ccvid-clothes-changing"]).first_hit_Q.tolist() == [3]
    assert evaluate(DISTANCE, worn(1, 1, 5), unknown, PROTOCOLS["ccvid-same-clothes"]).num_skipped == 1
    for name in OF_CLOTHES:
        assert evaluate(DISTANCE, worn(1, 1, -1), GALLERY, PROTOCOLS[name]).num_skipped == 1


def walked(distance: np.ndarray, query: Rows, gallery: Rows, name: str) -> list[tuple[float, int]]:
    """Average precision and first hit of every query, row by row; (NaN, 0) without a positive."""
    wanted = {"ccvid-general": None, "ccvid-clothes-changing": False, "ccvid-same-clothes": True}[name]
    outcomes = []
    for row, pid, camera, own in zip(distance, query.pids, query.camids, query.clothes, strict=True):
        hits, place = [], 0
        for at in np.argsort(row, kind="stable"):
            if gallery.pids[at] == -1:
                continue
            if gallery.pids[at] == pid:
                other = gallery.clothes[at]
                known = own >= 0 and other >= 0
                if gallery.camids[at] == camera or (wanted is not None and (not known or (other == own) != wanted)):
                    continue
            place += 1
            if gallery.pids[at] == pid:
                hits.append(place)
        precisions = [number / hit for number, hit in enumerate(hits, 1)]
        outcomes.append((float(np.mean(precisions)), hits[0]) if hits else (float("nan"), 0))
    return outcomes


@pytest.mark.parametrize("name", PROTOCOLS_OF_CCVID)
def test_scores_equal_a_walk_down_the_sorted_list(name):
    rng = np.random.default_rng(3)
    seen = {"skipped": 0, "averaged": 0}
    for _ in range(150):
        queries, size = rng.integers(1, 6), rng.integers(1, 40)
        distance = np.floor(rng.random((queries, size)) * rng.choice([4, 1000]))
        query = Rows(rng.integers(1, 4, queries), rng.integers(0, 3, queries), rng.integers(-1, 3, queries))
        gallery = Rows(rng.integers(-1, 4, size), rng.integers(0, 3, size), rng.integers(-1, 3, size))
        scores = evaluate(distance, query, gallery, PROTOCOLS[name])
        ap, first = zip(*walked(distance, query, gallery, name), strict=True)
        np.testing.assert_allclose(scores.ap_Q, ap, rtol=0, atol=1e-12)
        assert scores.first_hit_Q.tolist() == list(first)
        seen["skipped"] += scores.num_skipped
        seen["averaged"] += scores.num_queries
    assert min(seen.values()) > 50


def test_the_gallery_holds_neither_queries_nor_junk():
    pids, lengths = np.array([1, 1, -1, 0, 2]), np.array([1, 2, 3, 4, 5])
    for name in PROTOCOLS_OF_CCVID:
        query_rows, gallery_rows = select(protocol(name), pids, lengths, np.array([1]))
        assert (query_rows.tolist(), gallery_rows.tolist()) == ([1], [0, 3, 4])


@pytest.mark.parametrize("name", OF_CLOTHES)
def test_a_number_about_clothes_is_refused_without_clothes_labels(name):
    query, gallery = Rows([1], [1]), Rows([1, 2], [2, 2])
    sentence = f"protocol {name} asks who wears what, and the data set has no clothes labels"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        evaluate(np.zeros((1, 2)), query, gallery, PROTOCOLS[name])
    with pytest.raises(ValueError, match=re.escape(sentence)):
        evaluate(feature_blocks(np.zeros((1, 3)), np.zeros((2, 3))), query, gallery, PROTOCOLS[name])
    assert evaluate(np.zeros((1, 2)), query, gallery, PROTOCOLS["ccvid-general"]).num_queries == 1


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("ccvid-general", [0, 5]),
        ("ccvid-clothes-changing", [0, 2, 5]),
        ("ccvid-same-clothes", [0, 4, 5]),
        ("sptskm-smin", [5]),
    ],
)
def test_rows_that_are_not_ranked_can_be_asked_for(name, left_out):
    gallery = Rows([*GALLERY.pids, -1], [*GALLERY.camids, 1], [*GALLERY.clothes, 5])
    assert np.flatnonzero(not_ranked(worn(1, 1, 5), 0, gallery, PROTOCOLS[name])).tolist() == left_out


def test_no_other_protocol_looks_at_clothes():
    assert {name for name, rules in PROTOCOLS.items() if rules.clothes != "any"} == set(OF_CLOTHES)
