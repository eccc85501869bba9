"""The skeleton graph. Legend: K partitions, V joints."""

import numpy as np
import pytest
from helpers.oracles import needs_shared, oracle

from sptskm.data.skeletons import EDGES
from sptskm.models.graph import CENTRE, NUM_JOINTS, adjacency

DEGREES = [2, 4, 4, 3, 2, 4, 3, 2, 3, 3, 2, 3, 3, 2]  # with the self loop, as the specification lists them


def test_every_joint_shares_out_one_unit_among_itself_and_its_neighbours() -> None:
    total_VV = adjacency("spatial").sum(axis=0)
    np.testing.assert_allclose(total_VV.sum(axis=0), 1)
    np.testing.assert_array_equal((total_VV > 0).sum(axis=0), DEGREES)
    np.testing.assert_allclose(np.diag(total_VV), 1 / np.array(DEGREES))


def test_neighbours_are_exactly_the_bones() -> None:
    neighbours = adjacency("spatial")[1:].sum(axis=0) > 0
    bones = {(i, j) for edge in EDGES for i, j in (edge, edge[::-1])}
    assert {tuple(pair) for pair in np.argwhere(neighbours).tolist()} == bones


def test_only_edges_at_the_neck_and_its_neighbours_are_told_apart_by_direction() -> None:
    own, not_farther, farther = adjacency("spatial")
    assert np.count_nonzero(own) == NUM_JOINTS
    assert np.count_nonzero(not_farther) == 19
    assert np.count_nonzero(farther) == 7
    assert not_farther[0, CENTRE] > 0, "the head sends to the neck as the farther of the two"
    assert farther[CENTRE, 0] > 0
    assert not_farther[3, 4] > 0, "outer limbs count as equally far in both directions"
    assert not_farther[4, 3] > 0


def test_the_published_graph_has_self_loops_only() -> None:
    A_KVV = adjacency("published")
    assert A_KVV.shape == (3, NUM_JOINTS, NUM_JOINTS)
    np.testing.assert_array_equal(A_KVV[0], np.eye(NUM_JOINTS))
    assert not A_KVV[1:].any()


def test_an_unknown_graph_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'spatial' or 'published', not 'openpose'"):
        adjacency("openpose")  # type: ignore[arg-type]


@needs_shared
@pytest.mark.parametrize(("graph", "original"), [("spatial", "fixed"), ("published", "published")])
def test_adjacency_equals_the_original(graph: str, original: str) -> None:
    wanted = oracle("smin_graph.npz")[f"A/spatial/{original}"]
    np.testing.assert_allclose(adjacency(graph), wanted, rtol=0, atol=1e-12)  # type: ignore[arg-type]


@needs_shared
def test_edges_equal_the_original() -> None:
    wanted = {frozenset(edge) for edge in oracle("smin_graph.npz")["edges"].tolist()}
    assert {frozenset(edge) for edge in EDGES} == wanted
