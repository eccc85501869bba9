"""Camera-pair matrices equal a walk along every ranking, step by step as it is described."""

import numpy as np
import pytest

from sptskm.evaluation import Rows, camera_pairs, squared_distances


def walk(order: list[int], good: set[int], ignored: set[int]) -> tuple[float, float]:
    """AP by trapezoids and whether the first row that counts is good."""
    ap, recall, precision, passed, hits = 0.0, 0.0, 1.0, 0, 0
    first = float("nan")
    for row in order:
        if row in ignored:
            continue
        passed += 1
        hits += row in good
        if passed == 1 and good:
            first = float(row in good)
        found = hits / len(good) if good else 0.0
        ap += (found - recall) * (precision + hits / passed) / 2
        recall, precision = found, hits / passed
        if good and hits == len(good):
            break
    return ap, first


def matrices(distance: np.ndarray, query: Rows, gallery: Rows, cameras: range) -> tuple[np.ndarray, np.ndarray]:
    """Both matrices, query by query and camera by camera."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    rows = range(len(gallery))
    for q in range(len(query)):
        order = sorted(rows, key=lambda g, q=q: (distance[q, g], g))
        own = query.camids[q]
        same = {g for g in rows if gallery.pids[g] == query.pids[q]}
        for camera in cameras:
            elsewhere = {g for g in same if gallery.camids[g] not in (camera, own)}
            at_home = {g for g in same if gallery.camids[g] == own}
            if camera == own:
                good, ignored = at_home - {order[0]}, elsewhere | {order[0]}
            else:
                good, ignored = {g for g in same if gallery.camids[g] == camera}, elsewhere | at_home
            found.setdefault((own - 1, camera - 1), []).append(walk(order, good, ignored))
    ap, rank1 = np.full((2, len(cameras), len(cameras)), np.nan)
    for place, cells in found.items():
        aps, firsts = np.array(cells).T
        if (aps > 0).any():
            ap[place] = aps[aps > 0].mean()
        if not np.isnan(firsts).all():
            rank1[place] = np.nanmean(firsts)
    return ap, rank1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [5, 1000])
def test_both_matrices_equal_the_walk(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = Rows(rng.integers(-1, 7, 60), rng.integers(1, 5, 60))
    picked = rng.choice(np.flatnonzero(gallery.pids > 0), 12, replace=False)
    query = Rows(gallery.pids[picked], gallery.camids[picked])
    distance = rng.integers(0, levels, (12, 60)).astype(float)
    if seed % 2:
        distance[np.arange(12), picked] = -1.0
    pairs = camera_pairs(distance, query, gallery)
    ap, rank1 = matrices(distance, query, gallery, range(1, 5))
    np.testing.assert_array_equal(pairs.cameras_C, [1, 2, 3, 4])
    np.testing.assert_allclose(pairs.ap_CC, ap, rtol=1e-12)
    np.testing.assert_allclose(pairs.rank1_CC, rank1, rtol=1e-12)
    apart = ~np.eye(4, dtype=bool)
    assert pairs.summary() == pytest.approx((np.nanmean(ap[apart]), np.nanmean(rank1[apart])))


def test_perfect_features_are_perfect_between_any_two_cameras() -> None:
    pids = np.repeat([1, 2, 3], 4)
    rows = Rows(pids, np.tile([1, 2, 1, 2], 3))
    features = np.eye(3)[pids - 1] + 1e-3 * np.arange(12)[:, None]
    pairs = camera_pairs(squared_distances(features, features), rows, rows)
    np.testing.assert_array_equal(pairs.ap_CC, np.ones((2, 2)))
    assert pairs.summary() == (1.0, 1.0)


def test_cameras_that_share_nobody_have_no_value() -> None:
    rows = Rows(np.array([1, 2]), np.array([1, 2]))
    pairs = camera_pairs(1 - np.eye(2), rows, rows)
    assert np.isnan(pairs.ap_CC).all()
    assert np.isnan(pairs.summary()).all()


def test_another_shape_is_refused() -> None:
    rows = Rows(np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match=r"distances are \(2, 1\), wanted \(1, 1\)"):
        camera_pairs(np.zeros((2, 1)), rows, rows)
