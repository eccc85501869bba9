"""The generated data set: the layout of MARS, its determinism, and who wears what where."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from sptskm.common.errors import ConfigError
from sptskm.data.skeletons import EDGE_TOTAL, edge_total, normalise
from sptskm.synthetic import DEMO, TINY, Sizes, write_dataset, writer
from sptskm.synthetic.casting import Role, cast

Table = NDArray[np.int32]
SMALL = Sizes(
    train_ids=2,
    test_ids=2,
    cameras=2,
    tracklets_per_camera=(1, 1),
    frames=(3, 4),
    distractors=1,
    junk=1,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "tiny"
    write_dataset(folder, TINY, seed=0, workers=1)
    return folder


def _table(root: Path, split: str) -> Table:
    contents = scipy.io.loadmat(root / "info" / f"tracks_{split}_info.mat")
    table: Table = contents[f"track_{split}_info"]
    return table


def _names(root: Path, split: str) -> list[str]:
    return (root / "info" / f"{split}_name.txt").read_bytes().decode().split("\r\n")[:-1]


def _query(root: Path) -> NDArray[np.uint16]:
    query: NDArray[np.uint16] = scipy.io.loadmat(root / "info" / "query_IDX.mat")["query_IDX"]
    return query


def _contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("split", ["train", "test"])
def test_tables_have_the_type_and_the_order_of_mars(root: Path, split: str) -> None:
    table, names = _table(root, split), _names(root, split)
    assert table.dtype == np.int32
    assert table.shape[1] == 4
    assert table[0, 0] == 1
    assert table[-1, 1] == len(names)
    np.testing.assert_array_equal(table[1:, 0], table[:-1, 1] + 1)
    assert (np.diff(table[:, 2]) >= 0).all()
    assert set(table[:, 3]) <= {1, 2, 3}
    lengths = table[:, 1] - table[:, 0] + 1
    assert TINY.frames[0] <= lengths.min()
    assert lengths.max() <= TINY.frames[1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_names_say_what_the_table_says(root: Path, split: str) -> None:
    names = _names(root, split)
    seen = set()
    for first, last, pid, camid in _table(root, split):
        stretch = names[first - 1 : last]
        assert {int(name[2:4] if pid == -1 else name[:4]) for name in stretch} == {pid}
        assert {int(name[5]) for name in stretch} == {camid}
        assert [int(name[12:15]) for name in stretch] == list(range(1, len(stretch) + 1))
        assert len({name[:11] for name in stretch}) == 1
        seen.add(stretch[0][:11])
    assert len(seen) == len(_table(root, split))
    assert names[0] == ("0001" if split == "train" else "00-1") + names[0][4:]


@pytest.mark.parametrize("split", ["train", "test"])
def test_name_lists_end_every_line_as_mars_does(root: Path, split: str) -> None:
    raw = (root / "info" / f"{split}_name.txt").read_bytes()
    assert raw.endswith(b".jpg\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") == len(_names(root, split))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_listed_frame_has_exactly_its_three_files(root: Path, split: str) -> None:
    stems = {f"{name[:4]}/{Path(name).stem}" for name in _names(root, split)}
    for kind, suffix in (("", ".jpg"), ("_mask", ".png"), ("_joint3d", ".mat")):
        folder = root / f"bbox_{split}{kind}"
        files = (path for path in folder.rglob("*") if path.is_file())
        assert {path.relative_to(folder).as_posix() for path in files} == {s + suffix for s in stems}


def test_train_and_test_share_no_identity_and_have_as_many_as_asked(root: Path) -> None:
    train, test = set(_table(root, "train")[:, 2]), set(_table(root, "test")[:, 2])
    assert len(train) == TINY.train_ids
    assert min(train) > 0
    assert len(test - {-1, 0}) == TINY.test_ids
    assert not train & test
    counts = Counter(_table(root, "test")[:, 2].tolist())
    assert (counts[-1], counts[0]) == (TINY.junk, TINY.distractors)


def test_there_is_one_query_per_identity_and_camera(root: Path) -> None:
    query, test = _query(root), _table(root, "test")
    assert query.dtype == np.uint16
    assert query.shape == (1, query.size)
    assert (np.diff(query[0].astype(int)) > 0).all()
    queried = [tuple(row) for row in test[query[0].astype(int) - 1, 2:]]
    assert len(queried) == len(set(queried))
    assert set(queried) == {tuple(row) for row in test[test[:, 2] > 0, 2:]}


def test_every_query_has_a_positive_in_another_camera(root: Path) -> None:
    test = _table(root, "test")
    for row in _query(root)[0].astype(int) - 1:
        assert ((test[:, 2] == test[row, 2]) & (test[:, 3] != test[row, 3])).any()


def test_frames_and_masks_have_the_size_of_mars(root: Path) -> None:
    share = []
    for name in _names(root, "test")[:: TINY.frames[0]]:
        frame = cv2.imread(str(root / "bbox_test" / name[:4] / name), cv2.IMREAD_UNCHANGED)
        place = root / "bbox_test_mask" / name[:4] / name.replace(".jpg", ".png")
        mask = cv2.imread(str(place), cv2.IMREAD_UNCHANGED)
        assert frame is not None
        assert mask is not None
        assert frame.shape == (256, 128, 3)
        assert mask.shape == (256, 128)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        if not name.startswith("00-1"):
            share.append(float((mask > 0).mean()))
    assert 0.1 < np.median(share) < 0.5


@pytest.mark.parametrize("split", ["train", "test"])
def test_skeleton_files_hold_centred_and_turned_tracklets_in_metres(root: Path, split: str) -> None:
    names, usable = _names(root, split), 0
    for first, last, pid, _ in _table(root, split):
        skeletons = np.stack([_skeleton(root, split, name) for name in names[first - 1 : last]])
        np.testing.assert_allclose(normalise(skeletons, scaled=False), skeletons, atol=1e-9)
        valid = skeletons[~np.isnan(skeletons).any(axis=(1, 2))]
        assert not len(valid) or 2.5 < edge_total(valid[..., :3]) < 6
        assert len(valid) > 0 or pid == -1
        assert ((valid[..., 3] >= 0) & (valid[..., 3] <= 1)).all()
        usable += len(valid)
    assert usable > 0.8 * len(names)


def test_bodies_differ_in_size_unless_the_estimator_has_no_scale(tmp_path: Path) -> None:
    """All else is the same, to the byte."""
    write_dataset(tmp_path / "sized", SMALL, seed=3, workers=1)
    write_dataset(tmp_path / "one", SMALL, seed=3, workers=1, sized=False)
    sized, one = (_contents(tmp_path / name) for name in ("sized", "one"))
    assert {name for name in sized if sized[name] != one[name]} == {
        name for name in sized if name.endswith(".mat") and "joint3d" in name
    }
    totals = []
    for name in ("sized", "one"):
        table, names = _table(tmp_path / name, "train"), _names(tmp_path / name, "train")
        walks = [
            np.stack([_skeleton(tmp_path / name, "train", n) for n in names[row[0] - 1 : row[1]]]) for row in table
        ]
        totals.append([edge_total(walk[~np.isnan(walk).any(axis=(1, 2)), :, :3]) for walk in walks])
    assert np.ptp(totals[0]) > 0.05
    np.testing.assert_allclose(totals[1], EDGE_TOTAL)


def _skeleton(root: Path, split: str, name: str) -> NDArray[np.float64]:
    path = root / f"bbox_{split}_joint3d" / name[:4] / name.replace(".jpg", ".mat")
    skeleton: NDArray[np.float64] = scipy.io.loadmat(path)["new_joint"]
    assert skeleton.shape == (14, 4)
    assert skeleton.dtype == np.float64
    return skeleton


def test_walkers_stand_upright_and_swing_their_legs_in_turn(root: Path) -> None:
    names = _names(root, "train")
    skeletons = np.stack([_skeleton(root, "train", name) for name in names])
    skeletons = skeletons[~np.isnan(skeletons).any(axis=(1, 2))]
    assert np.median(skeletons[:, 0, 1]) < -0.3
    assert np.median(skeletons[:, [10, 13], 1]) > 0.3
    right, left = skeletons[:, 10, 2], skeletons[:, 13, 2]
    assert np.corrcoef(right, left)[0, 1] < -0.3


def test_clothes_name_the_outfit_of_every_identity_s_tracklet(root: Path) -> None:
    with (root / "clothes.csv").open(newline="", encoding="ascii") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["tracklet", "clothes"]
    expected = []
    for split in ("train", "test"):
        names, table = _names(root, split), _table(root, split)
        expected += [Path(names[row[0] - 1]).stem for row in table if row[2] > 0]
    assert [row[0] for row in rows[1:]] == expected
    assert all(clothes == f"{int(key[:4])}-{clothes[-1]}" for key, clothes in rows[1:])


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one", SMALL, seed=3, workers=1)
    write_dataset(tmp_path / "two", SMALL, seed=3, workers=2)
    one, two = _contents(tmp_path / "one"), _contents(tmp_path / "two")
    assert len(one) > 100
    assert one == two


def test_another_seed_gives_other_people_in_other_pictures(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one", SMALL, seed=3, workers=1)
    write_dataset(tmp_path / "two", SMALL, seed=4, workers=1)
    one, two = _contents(tmp_path / "one"), _contents(tmp_path / "two")
    shared = [name for name in one.keys() & two.keys() if name.startswith("bbox_train/")]
    assert len(shared) > 5
    assert all(one[name] != two[name] for name in shared)


def test_no_header_of_a_mat_file_carries_a_date(root: Path) -> None:
    headers = {path.read_bytes()[:116] for path in root.rglob("*.mat")}
    assert len(headers) == 1
    assert b"written by sptskm" in headers.pop()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=f"{tmp_path} already holds something"):
        write_dataset(tmp_path, SMALL, seed=0, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_less_than_one_worker_or_a_seed_below_0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0, wanted at least 1"):
        write_dataset(tmp_path / "none", SMALL, seed=0, workers=0)
    with pytest.raises(ConfigError, match="seed is -1, wanted at least 0"):
        write_dataset(tmp_path / "none", SMALL, seed=-1, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "empty"
    target.mkdir()
    write_dataset(target, SMALL, seed=0, workers=1)
    assert (target / "info" / "query_IDX.mat").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_failing_generator_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "film", fail)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "half", SMALL, seed=0, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_logged_in_fifths_where_there_is_no_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level("INFO", logger="sptskm"):
        write_dataset(tmp_path / "small", SMALL, seed=0, workers=1)
    frames = len(list((tmp_path / "small").rglob("*.jpg")))
    assert 2 <= len(caplog.messages) <= 5
    assert caplog.messages[-1].endswith(f"{frames} of {frames} frames")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("seed", [0, 1])
def test_about_half_of_the_cameras_see_clothes_that_no_other_camera_sees(split: str, seed: int) -> None:
    cameras = defaultdict(set)
    for role in cast(DEMO, split, seed):
        if role.pid > 0:
            cameras[role.clothes].add(role.camid)
    alone = sum(len(seen) == 1 for seen in cameras.values())
    assert 0.4 <= alone / sum(len(seen) for seen in cameras.values()) <= 0.6


def test_a_camera_sees_an_identity_in_one_outfit_only() -> None:
    worn = defaultdict(set)
    for role in cast(DEMO, "test", 0):
        worn[role.pid, role.camid].add(role.clothes)
    assert {len(clothes) for clothes in worn.values()} == {1}


def test_nearly_every_outfit_is_worn_by_several_identities() -> None:
    wearers = defaultdict(set)
    for role in cast(DEMO, "test", 0):
        if role.pid > 0:
            wearers[role.outfit.pattern, role.outfit.top, role.outfit.bottom].add(role.pid)
    alone = sum(len(pids) for pids in wearers.values() if len(pids) == 1)
    assert alone / sum(len(pids) for pids in wearers.values()) < 0.2


def test_the_plan_of_a_tracklet_keeps_its_person() -> None:
    walkers = defaultdict(set)
    for role in cast(DEMO, "test", 0):
        walkers[role.pid].add(role.walker)
    identities = [pid for pid in walkers if pid > 0]
    assert len(identities) == DEMO.test_ids
    assert all(len(walkers[pid]) == 1 for pid in identities)
    assert len({walker for pid in identities for walker in walkers[pid]}) == DEMO.test_ids
    assert len(walkers[0]) == DEMO.distractors


def test_the_demo_has_a_demo_s_size() -> None:
    roles: list[Role] = [*cast(DEMO, "train", 0), *cast(DEMO, "test", 0)]
    assert 10_000 < sum(role.frames for role in roles) < 20_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sizes: replace(sizes, cameras=7), "cameras is 7, wanted at most 6"),
        (lambda sizes: replace(sizes, frames=(9, 4)), "frames is 9 4, wanted the smaller number first"),
        (lambda sizes: replace(sizes, frames=(4, 1000)), "frames is 1000, wanted at most 999"),
        (lambda sizes: replace(sizes, train_ids=0), "train_ids is 0, wanted at least 1"),
    ],
)
def test_impossible_sizes_are_refused(change: Callable[[Sizes], Sizes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(TINY)
