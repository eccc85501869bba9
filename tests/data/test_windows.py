"""Which frames make a clip. Legend: T frames per clip."""

import json

import numpy as np
import pytest
from helpers.oracles import SHARED, needs_shared

from sptskm.data.windows import chosen_clips, covering_clips, dense_clips, random_window


def drawn(length: int, T: int, last_window: bool = True) -> set[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return {tuple(random_window(length, T, rng, last_window).tolist()) for _ in range(300)}


def test_every_window_can_be_drawn_and_the_last_one_holds_the_last_frame() -> None:
    assert drawn(7, 4) == {(s, s + 1, s + 2, s + 3) for s in range(4)}
    assert drawn(5, 4) == {(0, 1, 2, 3), (1, 2, 3, 4)}
    assert drawn(4, 4) == {(0, 1, 2, 3)}


def test_the_published_code_never_draws_the_last_window() -> None:
    assert drawn(7, 4, last_window=False) == {(s, s + 1, s + 2, s + 3) for s in range(3)}
    assert drawn(5, 4, last_window=False) == {(0, 1, 2, 3)}
    assert drawn(4, 4, last_window=False) == {(0, 1, 2, 3)}


def test_a_tracklet_shorter_than_a_window_is_repeated() -> None:
    assert drawn(3, 4) == drawn(3, 4, last_window=False) == {(0, 1, 2, 0)}
    assert drawn(1, 4) == {(0, 0, 0, 0)}
    assert drawn(3, 8) == {(0, 1, 2, 0, 1, 2, 0, 1)}


def test_starts_are_uniform() -> None:
    rng = np.random.default_rng(0)
    starts = np.bincount([random_window(7, 4, rng)[0] for _ in range(4000)], minlength=4)
    assert (np.abs(starts - 1000) < 150).all()


@pytest.mark.parametrize("T", [1, 3, 4])
def test_dense_clips_hold_every_frame_and_repeat_only_in_the_last(T: int) -> None:
    for length in range(1, 30):
        clips = dense_clips(length, T)
        assert clips.shape == (-(-length // T), T)
        np.testing.assert_array_equal(clips[:-1].ravel(), np.arange((len(clips) - 1) * T))
        rest = length - (len(clips) - 1) * T
        np.testing.assert_array_equal(clips[-1], (len(clips) - 1) * T + np.arange(T) % rest)


@pytest.mark.parametrize("T", [1, 2, 7, 30])
def test_covering_clips_hold_every_frame_without_padding(T: int) -> None:
    for length in range(T, 200):
        clips = covering_clips(length, T)
        assert len(clips) == -(-length // T), "no more windows than needed"
        assert set(clips.ravel().tolist()) == set(range(length))
        assert (np.diff(clips, axis=1) == 1).all()
        steps = np.diff(clips[:, 0])
        assert len(steps) == 0 or (steps.min() >= 1 and steps.max() - steps.min() <= 2)


def test_a_short_tracklet_gives_one_window_that_reaches_beyond_its_end() -> None:
    for length in range(1, 8):
        np.testing.assert_array_equal(covering_clips(length, 7), [np.arange(7)])


def test_limited_clips_are_drawn_by_the_row_alone_and_stay_in_order() -> None:
    clips = dense_clips(200, 4)
    chosen = chosen_clips(clips, 20, row=3)
    assert chosen.shape == (20, 4)
    assert (np.diff(chosen[:, 0]) > 0).all(), "ordered, and none twice"
    assert {tuple(clip) for clip in chosen.tolist()} <= {tuple(clip) for clip in clips.tolist()}
    np.testing.assert_array_equal(chosen, chosen_clips(clips, 20, row=3))
    assert not np.array_equal(chosen, chosen_clips(clips, 20, row=4))


def test_no_limit_and_few_clips_leave_all() -> None:
    clips = dense_clips(80, 4)
    for limit in (0, 20, 21):
        np.testing.assert_array_equal(chosen_clips(clips, limit, row=0), clips)


@needs_shared
def test_dense_clips_are_those_of_the_original() -> None:
    table = json.loads((SHARED / "oracles" / "ssin_sampling.json").read_text())["dense"]
    assert len(table) > 10
    for name, wanted in table.items():
        T, length = (int(part[1:]) for part in name.split("_"))
        # with 20 clips or more the original draws 20; all are stored, so that the order is comparable
        np.testing.assert_array_equal(dense_clips(length, T), wanted, err_msg=name)


@needs_shared
def test_the_published_windows_are_those_of_the_original() -> None:
    table = json.loads((SHARED / "oracles" / "ssin_sampling.json").read_text())["random_possible"]
    assert len(table) > 5
    for name, wanted in table.items():
        T, length = (int(part[1:]) for part in name.split("_"))
        rng = np.random.default_rng(0)
        ours = {tuple(random_window(length, T, rng, last_window=False).tolist()) for _ in range(40 * len(wanted))}
        assert ours == {tuple(window) for window in wanted}, name
