"""The projector stays within what TensorBoard can show."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from sptskm.evaluation.results import Results
from sptskm.report.projector import LARGEST, SHOWN, SPRITE, reduced, sample, tile, write_projector


@pytest.mark.parametrize("count", [0, 1, 2, 100, 2000, 12_180, 16_384, 16_385, 1_000_000])
def test_a_sprite_never_exceeds_what_graphics_cards_take(count: int) -> None:
    across = math.ceil(math.sqrt(max(count, 1)))
    assert 1 <= tile(count) <= LARGEST
    assert across * tile(count) <= SPRITE


def test_all_of_mars_would_fit_in_full_size() -> None:
    assert tile(12_180) == LARGEST
    assert SPRITE // math.ceil(math.sqrt(12_180)) == 73


def test_too_many_tracklets_are_thinned_out_evenly() -> None:
    few, many = sample(np.arange(10)), sample(np.arange(12_180))
    assert few.tolist() == list(range(10))
    assert len(many) == SHOWN
    assert (many[0], many[-1]) == (0, 12_179)
    assert np.ptp(np.diff(many)) <= 1


def test_reduced_features_keep_the_distances_that_matter() -> None:
    rng = np.random.default_rng(0)
    wide_ND = (rng.normal(size=(40, 8)) @ rng.normal(size=(8, 300)) + 5).astype(np.float32)
    small_ND = reduced(wide_ND, 8)
    assert small_ND.shape == (40, 8)
    before, after = (np.linalg.norm(x[:, None] - x, axis=2) for x in (wide_ND, small_ND))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)
    assert reduced(small_ND, 8) is small_ND


def test_every_tracklet_with_features_is_a_point_with_its_role_and_thumbnail(
    make: Callable[..., Results], tmp_path: Path
) -> None:
    results = make()
    write_projector(results, tmp_path)
    for stream in ("SSIN", "SMIN"):
        (folder,) = (path.parent for path in tmp_path.rglob("metadata.tsv") if stream in str(path))
        lines = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
        assert lines[0] == ["identity", "camera", "role", "tracklet"]
        assert len(lines) == len(results.table.test)  # one has no features
        assert sum(line[2] == "query" for line in lines) in (len(results.test.query), len(results.test.query) - 1)
        assert len((folder / "tensors.tsv").read_text().splitlines()) == len(lines) - 1
        sprite = cv2.imread(str(folder / "sprite.png"))
        assert sprite is not None
        assert max(sprite.shape) <= SPRITE
        assert sprite[:LARGEST, :LARGEST].std() > 5
