"""Identities held out of training."""

from pathlib import Path

import numpy as np
import pytest
from handmade import Walk, write_tables

from sptskm.data import DataError, Tracklets, hold_out, read_mars

SHARE = 0.3


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Tracklets:
    """Identities 1 to 20 in three cameras, two tracklets each, of 5 to 64 frames; 21 and 22 in one camera only."""
    rng = np.random.default_rng(0)
    walks = [
        Walk(pid, camid, int(rng.integers(5, 65)), number)
        for pid in range(1, 23)
        for camid in ((1, 2, 3) if pid <= 20 else (1,))
        for number in (1, 2)
    ]
    return read_mars(write_tables(tmp_path_factory.mktemp("splits"), train=walks))


def test_held_out_identities_do_not_train(table: Tracklets) -> None:
    split = hold_out(table, SHARE, seed=0)
    train, held = set(table.pids[split.train].tolist()), set(table.pids[split.held_out].tolist())
    assert not train & held
    assert train | held == set(range(1, 23))
    assert len(held) == round(SHARE * 22)
    assert len(split.train) + len(split.held_out) == table.num_train


def test_only_training_rows_are_ever_used(table: Tracklets) -> None:
    split = hold_out(table, SHARE, seed=0)
    assert max(split.train.max(), split.held_out.max()) < table.num_train


def test_identities_of_one_camera_are_never_held_out(table: Tracklets) -> None:
    for seed in range(20):
        assert not {21, 22} & set(table.pids[hold_out(table, 0.8, seed).held_out].tolist())


def test_classes_are_the_training_identities_in_order(table: Tracklets) -> None:
    split = hold_out(table, SHARE, seed=0)
    assert split.classes.tolist() == sorted(set(table.pids[split.train].tolist()))


def test_there_is_one_query_for_every_identity_and_camera(table: Tracklets) -> None:
    split = hold_out(table, SHARE, seed=0)
    rows = split.held_out[split.query]
    queries = list(zip(table.pids[rows].tolist(), table.camids[rows].tolist(), strict=True))
    held = zip(table.pids[split.held_out].tolist(), table.camids[split.held_out].tolist(), strict=True)
    assert len(queries) == len(set(queries))
    assert set(queries) == set(held)


def test_the_query_is_drawn_among_the_tracklets_of_a_camera(table: Tracklets) -> None:
    numbers = {
        table.keys_N[row][7:11]
        for seed in range(10)
        for split in [hold_out(table, SHARE, seed)]
        for row in split.held_out[split.query].tolist()
    }
    assert numbers == {"0001", "0002"}


def test_the_same_seed_gives_the_same_split_and_another_seed_another(table: Tracklets) -> None:
    a, b, c = (hold_out(table, SHARE, seed) for seed in (4, 4, 5))
    assert a.hash == b.hash != c.hash
    np.testing.assert_array_equal(a.query, b.query)
    assert set(table.pids[a.held_out].tolist()) != set(table.pids[c.held_out].tolist())


def test_both_streams_validate_on_the_same_rows_whatever_their_length_filter(table: Tracklets) -> None:
    ssin, smin = hold_out(table, SHARE, 0, min_length=1), hold_out(table, SHARE, 0, min_length=31)
    np.testing.assert_array_equal(ssin.held_out, smin.held_out)
    np.testing.assert_array_equal(ssin.query, smin.query)
    assert len(smin.train) < len(ssin.train)
    assert table.lengths[smin.train].min() >= 31
    assert table.lengths[smin.held_out].min() < 31, "held-out tracklets are not filtered"


def test_holding_nothing_out_trains_on_everything(table: Tracklets) -> None:
    split = hold_out(table, 0, seed=0)
    np.testing.assert_array_equal(split.train, table.train)
    assert len(split.held_out) == len(split.query) == 0


def test_the_hash_is_that_of_what_is_held_out_whatever_a_stream_trains_on(table: Tracklets) -> None:
    assert hold_out(table, SHARE, 0, 1).hash == hold_out(table, SHARE, 0, 31).hash
    assert hold_out(table, SHARE, 0).hash != hold_out(table, 2 * SHARE, 0).hash


def test_too_small_a_share_and_too_long_a_minimum_are_one_sentence(table: Tracklets, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.held_out 0\.05 of 22 training identities keeps 1 .* at least 2"):
        hold_out(table, 0.05, seed=0)
    with pytest.raises(DataError, match=r"65 frames wanted \(data.min_length\)"):
        hold_out(table, SHARE, seed=0, min_length=65)
    one_camera = read_mars(write_tables(tmp_path, train=[Walk(pid, 1, 9) for pid in range(1, 9)]))
    with pytest.raises(DataError, match="keeps 0 seen by two cameras"):
        hold_out(one_camera, 0.5, seed=0)
