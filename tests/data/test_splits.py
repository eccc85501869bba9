"""Identities held out of training, and of manifests that have no split."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.handmade import Walk, write_tables

from sptskm.common.errors import DataError
from sptskm.config import ConfigError, Data
from sptskm.data import Tracklets, hold_out, read_mars
from sptskm.data.manifest import Entry
from sptskm.data.splits import split_by_identity

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
    test = (Walk(-1, 1, 2), Walk(0, 2, 3), Walk(30, 1, 1), Walk(30, 3, 2))
    return read_mars(write_tables(tmp_path_factory.mktemp("splits"), train=walks, test=test))


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


def test_folds_part_the_identities_of_several_cameras(table: Tracklets) -> None:
    folds = [hold_out(table, SHARE, seed=3, fold=(number, 4)) for number in (1, 2, 3, 4)]
    people = [set(table.pids[split.left_out].tolist()) for split in folds]
    assert sorted(pid for fold in people for pid in fold) == list(range(1, 21))
    assert {len(fold) for fold in people} == {5}
    for split, fold in zip(folds, people, strict=True):
        others = table.pids[np.concatenate([split.train, split.held_out])]
        assert set(others.tolist()) == set(range(1, 23)) - fold
        assert len(set(table.pids[split.held_out].tolist())) == round(SHARE * 17)
    assert len({split.hash for split in folds}) == 4
    assert not len(hold_out(table, SHARE, seed=3).left_out)


def test_folds_of_a_single_person_are_refused(table: Tracklets) -> None:
    with pytest.raises(DataError, match=r"11 folds of 20 training identities .* wanted at most 10 folds"):
        hold_out(table, SHARE, seed=0, fold=(1, 11))


@pytest.mark.parametrize("fold", ["0/4", "5/4", "1/1", "1", "a/b", "1/2/3", "-1/4"])
def test_a_fold_that_there_is_not_is_refused(fold: str) -> None:
    with pytest.raises(ConfigError, match=f"fold is {fold}, wanted NUMBER/COUNT, such as 1/4"):
        Data(fold=fold)
    assert (Data(fold="2/3").fold_numbers, Data().fold_numbers) == ((2, 3), None)


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
    one_camera = read_mars(write_tables(tmp_path, train=[Walk(pid, 1, 9) for pid in range(11, 19)]))
    with pytest.raises(DataError, match="keeps 0 seen by two cameras"):
        hold_out(one_camera, 0.5, seed=0)


ENTRIES = [
    Entry(f"{pid}-{camera}-{number}", f"p{pid}", camera, "", "x")
    for pid in range(1, 23)
    for camera in (("a", "b", "c") if pid <= 20 else ("a",))
    for number in (1, 2)
]


def test_a_share_of_the_identities_is_tested_and_the_others_train() -> None:
    entries = split_by_identity(ENTRIES, SHARE, seed=0)
    assert [replace(entry, split="") for entry in entries] == ENTRIES, "nothing else changes, and no place"
    train = {entry.pid for entry in entries if entry.split == "train"}
    tested = {entry.pid for entry in entries if entry.split != "train"}
    assert not train & tested
    assert len(tested) == round(SHARE * 22)
    assert train >= {"p21", "p22"}, "seen by one camera"


def test_one_query_for_every_identity_and_camera_is_drawn_and_the_rest_is_gallery() -> None:
    entries = split_by_identity(ENTRIES, SHARE, seed=0)
    queries = [(entry.pid, entry.camera) for entry in entries if entry.split == "query"]
    gallery = [(entry.pid, entry.camera) for entry in entries if entry.split == "gallery"]
    assert len(queries) == len(set(queries)) == 3 * round(SHARE * 22)
    assert sorted(queries) == sorted(gallery), "of two tracklets each"
    drawn = {e.tracklet[-1] for seed in range(5) for e in split_by_identity(ENTRIES, SHARE, seed) if e.split == "query"}
    assert drawn == {"1", "2"}


def test_somebody_with_one_tracklet_a_camera_has_one_in_the_gallery() -> None:
    """Else a protocol without the queries in its gallery would have nothing to find."""
    entries = split_by_identity([entry for entry in ENTRIES if entry.tracklet.endswith("1")], SHARE, seed=0)
    tested = {entry.pid for entry in entries if entry.split != "train"}
    for pid in tested:
        assert sorted(entry.split for entry in entries if entry.pid == pid) == ["gallery", "query", "query"]


def test_what_one_camera_recorded_is_split_too() -> None:
    entries = split_by_identity([replace(entry, camera="sensor") for entry in ENTRIES], SHARE, seed=0)
    for pid in {entry.pid for entry in entries if entry.split != "train"}:
        splits = [entry.split for entry in entries if entry.pid == pid]
        assert splits.count("query") == 1
        assert splits.count("gallery") == len(splits) - 1 > 0


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_lines() -> None:
    mixed = random.Random(0).sample(ENTRIES, len(ENTRIES))
    splits = [{e.tracklet: e.split for e in split_by_identity(lines, SHARE, 4)} for lines in (ENTRIES, mixed)]
    assert splits[0] == splits[1]
    other = {e.tracklet: e.split for e in split_by_identity(ENTRIES, SHARE, 5)}
    assert {key for key in other if other[key] == "train"} != {key for key in other if splits[0][key] == "train"}


def test_a_former_split_is_forgotten_but_distractors_and_junk_stay() -> None:
    entries = [replace(entry, split="gallery") for entry in ENTRIES]
    nobody = [Entry("d", "p1", "a", "distractor", "x"), Entry("j", "", "b", "junk", "x")]
    found = split_by_identity([*entries, *nobody], SHARE, 0)
    assert found == [*split_by_identity(ENTRIES, SHARE, 0), *nobody]


def test_nothing_or_everything_can_be_tested() -> None:
    assert {entry.split for entry in split_by_identity(ENTRIES, 0, 0)} == {"train"}
    everything = split_by_identity(ENTRIES, 1, 0)
    assert {entry.pid for entry in everything if entry.split == "train"} == {"p21", "p22"}


def test_a_share_that_cannot_be_tested_on_is_one_sentence() -> None:
    with pytest.raises(
        DataError, match=r"a test share of 0\.05 of 22 identities keeps 1 seen by two cameras, wanted at l"
    ):
        split_by_identity(ENTRIES, 0.05, 0)
    with pytest.raises(DataError, match="keeps 0 seen by two cameras"):
        split_by_identity([replace(entry, camera=entry.pid) for entry in ENTRIES], 0.5, 0)
    with pytest.raises(DataError, match="keeps 0 with two tracklets"):
        split_by_identity([replace(entry, camera="a", pid=entry.tracklet) for entry in ENTRIES], 0.5, 0)
    for share in (-0.1, 50, float("nan")):
        with pytest.raises(DataError, match=r"the test share is .*, wanted 0 to 1"):
            split_by_identity(ENTRIES, share, 0)
    with pytest.raises(DataError, match="the seed is -1, wanted 0 or more"):
        split_by_identity(ENTRIES, 0.5, -1)


def test_data_without_training_tracklets_say_how_they_get_some(table: Tracklets) -> None:
    unlabelled = replace(table, num_train=0, query=np.empty(0, np.int64))
    with pytest.raises(
        DataError, match=r"no tracklet is of split train, .* one pid .* --test-share 0.5` splits people"
    ):
        hold_out(unlabelled, 0.1, 0)
