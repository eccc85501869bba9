"""Whether the skeletons of a data set have a size, and what becomes of it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sptskm.common.errors import DataError
from sptskm.data import Tracklets, read_dataset
from sptskm.data.skeleton_scale import unit_of
from sptskm.data.skeleton_store import load_skeletons
from sptskm.data.skeletons import EDGE_TOTAL, edge_total
from sptskm.synthetic.walkers import draw_walker, pose

PEOPLE, FRAMES = 4, 6


def walks(folder: Path, factors: Any = 1.0, record: dict[str, str] | None = None) -> Tracklets:
    """One walk of each person as a .npy file; `factors` multiply metres, `record` is that of their method."""
    lines = ["tracklet,pid,camera,split,skeleton"]
    for person, factor in enumerate(np.broadcast_to(factors, PEOPLE).tolist()):
        walker = draw_walker(np.random.default_rng(person))
        skeletons = np.ones((FRAMES, 14, 4))
        skeletons[..., :3] = pose(walker.body, walker.gait, np.arange(FRAMES) / 2)[:, :14] * factor
        np.save(folder / f"{person}.npy", skeletons)
        lines.append(f"t{person},p{person},c1,train,{person}.npy")
    (folder / "m.csv").write_text("\n".join(lines))
    if record is not None:
        (folder / "prepared" / "skeletons").mkdir(parents=True)
        (folder / "prepared" / "skeletons" / "settings.json").write_text(json.dumps(record))
    return read_dataset(folder / "m.csv")


def sums(table: Tracklets, scale: Any) -> list[float]:
    """The sum of bones of each tracklet as it is loaded."""
    store = load_skeletons(table, table.train, scale=scale)
    return [edge_total(store.frames(int(row))[0].double().numpy()[..., :3]) for row in table.train]


@pytest.mark.parametrize(("factor", "unit"), [(1.0, 1.0), (100.0, 0.01), (1000.0, 0.001)])
def test_lengths_of_people_in_metres_centimetres_and_millimetres_are_known(
    tmp_path: Path, factor: float, unit: float
) -> None:
    assert unit_of("auto", walks(tmp_path, factor)) == unit


def test_sizes_in_any_unit_are_kept_in_metres(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "mm").mkdir()
    found = sums(walks(tmp_path / "m"), "auto")
    assert np.ptp(found) > 0.1
    np.testing.assert_allclose(sums(walks(tmp_path / "mm", 1000), "auto"), found, rtol=1e-5)


def test_by_default_every_tracklet_has_one_size(tmp_path: Path) -> None:
    np.testing.assert_allclose(sums(walks(tmp_path), "tracklet"), EDGE_TOTAL, rtol=1e-5)


@pytest.mark.parametrize(
    ("factors", "record", "why"),
    [
        (1.0, {"method": "pose-hg-3d"}, "made by pose-hg-3d, which has no size"),
        (1.0, {"method": "imported", "as": "coco-17 xyc"}, "made by coco-17 xyc, which has no size"),
        (7.0, None, "which is no person's in any of m, cm, mm"),
        ([1, 40, 3, 200], None, "which is no person's"),
    ],
)
def test_without_sizes_proportions_are_left_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factors: Any, record: dict[str, str] | None, why: str
) -> None:
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(sums(walks(tmp_path, factors, record), "auto"), EDGE_TOTAL, rtol=1e-5)
    assert why in caplog.text
    assert "only proportions are left" in caplog.text


@pytest.mark.parametrize("record", [{"method": "blazepose"}, {"method": "imported", "as": "kinect-25 xyz"}])
def test_methods_that_measure_metres_keep_them_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, record: dict[str, str]
) -> None:
    with caplog.at_level(logging.INFO):
        assert unit_of("auto", walks(tmp_path, 1.0, record)) == 1.0
    assert f"made by {record.get('as', 'blazepose')}" in caplog.text
    assert "sizes are kept" in caplog.text


def test_skeletons_that_were_brought_to_one_size_have_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = walks(tmp_path)
    unscaled = [EDGE_TOTAL / total for total in sums(table, "metric")]
    with caplog.at_level(logging.WARNING):
        assert unit_of("auto", walks(tmp_path, unscaled)) is None
    assert "all have a sum of bones of 2.7" in caplog.text


def test_a_tracklet_of_another_unit_is_refused_where_sizes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = walks(tmp_path, [1.0, 1.0, 1000.0, 1.0])
    monkeypatch.setattr("sptskm.data.skeleton_scale.PLAUSIBLE", 0.7)  # of so few tracklets
    with pytest.raises(
        DataError, match=r"tracklet t2 in .*2\.npy: has a sum of bones of .*, wanted the unit of the others"
    ):
        load_skeletons(table, table.train, scale="auto")
    load_skeletons(table, table.train, scale="tracklet")
    load_skeletons(table, table.train, scale="metric")


@pytest.mark.parametrize("record", [{"method": "imported"}, {"method": "imported", "as": ""}, {}])
def test_a_record_that_says_no_layout_leaves_it_to_the_lengths_of_bones(tmp_path: Path, record: dict[str, str]) -> None:
    assert unit_of("auto", walks(tmp_path, 1000, record)) == 0.001
