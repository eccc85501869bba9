"""Slow, independent evaluation in plain Python, and the labels of MARS where they are at hand."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.oracles import SHARED
from scipy.io import loadmat

from sptskm.evaluation import Rows, Scores

# Whether the query's own camera is left out, and whether AP is the official trapezoid. CCVID: test_clothes.py.
RULES = {
    "mars-official": (True, True),
    "mars-standard": (True, False),
    "torchreid": (True, False),
    "sptskm-ssin": (True, False),
    "sptskm-smin": (False, False),
    "any-camera": (False, False),
}


def trapezoids(ranking: list[str]) -> tuple[float, int]:
    """Average precision and first hit of a list of good, wrong and junk: the official walk."""
    goods = ranking.count("good")
    average, recall_before, precision_before = 0.0, 0.0, 1.0
    hits, passed, first = 0, 0, 0
    for kind in ranking:
        if kind == "junk":
            continue
        if kind == "good":
            hits += 1
            first = first or passed + 1
        recall, precision = hits / goods, hits / (passed + 1)
        average += (recall - recall_before) * (precision_before + precision) / 2
        recall_before, precision_before = recall, precision
        passed += 1
        if hits == goods:
            break
    return average, first


def mean_precision(ranking: list[str]) -> tuple[float, int]:
    kinds = [kind for kind in ranking if kind != "junk"]
    hits = [place for place, kind in enumerate(kinds, 1) if kind == "good"]
    return sum(number / place for number, place in enumerate(hits, 1)) / len(hits), hits[0]


def slowly(distance: np.ndarray, query: Rows, gallery: Rows, name: str) -> Iterator[tuple[float, int]]:
    """Average precision and first hit per query, (NaN, 0) without a positive."""
    cameras_count, official = RULES[name]
    labels = list(zip(gallery.pids.tolist(), gallery.camids.tolist(), strict=True))
    for row, pid, camera in zip(distance.tolist(), query.pids, query.camids, strict=True):
        ranking = []
        for at in sorted(range(len(row)), key=row.__getitem__):
            other_pid, other_camera = labels[at]
            own_camera = cameras_count and other_camera == camera
            if other_pid == -1 or (other_pid == pid and own_camera):
                ranking.append("junk")
            else:
                ranking.append("good" if other_pid == pid else "wrong")
        if "good" not in ranking:
            yield float("nan"), 0
        else:
            yield trapezoids(ranking) if official else mean_precision(ranking)


def as_walked(scores: Scores, distance: np.ndarray, query: Rows, gallery: Rows, name: str) -> None:
    ap, first = map(np.array, zip(*slowly(distance, query, gallery, name), strict=True))
    np.testing.assert_allclose(scores.ap_Q, ap, rtol=0, atol=1e-9)
    assert scores.first_hit_Q.tolist() == first.tolist()
    assert (scores.num_queries, scores.num_skipped) == ((first > 0).sum(), (first == 0).sum())
    if scores.num_queries:
        assert scores.mAP == pytest.approx(np.nanmean(ap), abs=1e-9)
        hits = [np.mean(first[first > 0] <= k) for k in range(1, 51)]
        np.testing.assert_allclose(scores.cmc, hits, rtol=0, atol=1e-12)


@pytest.fixture
def assert_as_walked() -> Callable[..., None]:
    """Assert that scores equal those of a walk down the sorted list of every query."""
    return as_walked


@pytest.fixture(params=list(RULES))
def name(request: pytest.FixtureRequest) -> str:
    """Every protocol in turn but those of CCVID."""
    return str(request.param)


@pytest.fixture(scope="session")
def mars() -> SimpleNamespace:
    """The test table of MARS: pids, camids, lengths and 0-based query rows."""
    folder = SHARED / "data" / "mars-info"
    if not folder.is_dir():
        pytest.skip(f"the MARS label files are not at {folder}")
    table = loadmat(folder / "tracks_test_info.mat")["track_test_info"].astype(np.int64)
    rows = loadmat(folder / "query_IDX.mat")["query_IDX"][0].astype(np.int64) - 1
    first, last, pids, camids = table.T
    return SimpleNamespace(pids=pids, camids=camids, lengths=last - first + 1, query=rows)


@pytest.fixture(scope="session")
def recorded() -> dict[str, np.ndarray]:
    """Inputs and outputs of the evaluation code published with SSIN and SMIN."""
    path = SHARED / "oracles" / "evaluate.npz"
    if not path.is_file():
        pytest.skip(f"the numbers of the original code are not at {path}")
    with np.load(path) as arrays:
        return dict(arrays)
