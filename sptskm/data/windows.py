"""Choose the frames of a clip by pure functions of the tracklet's length. Legend: c clips, T frames per clip."""

import numpy as np

from sptskm.data.tracklets import IntArray


def random_window(length: int, T: int, rng: np.random.Generator, last_window: bool = True) -> IntArray:
    """Draw T consecutive frame numbers (T,) with a uniform start; shorter tracklets repeat cyclically.

    Without `last_window` the last possible start is left out, as in the published code, which therefore never draws
    the last frame of a tracklet longer than T.
    """
    highest = max(0, length - T - (0 if last_window else 1))
    start = int(rng.integers(highest + 1))
    return (start + np.arange(T)) % length if length < T else start + np.arange(T)


def dense_clips(length: int, T: int) -> IntArray:
    """Return consecutive clips (c, T) that cover a tracklet; the last one repeats the remaining frames cyclically."""
    return np.stack([_cyclic(start, min(T, length - start), T) for start in range(0, length, T)])


def covering_clips(length: int, T: int) -> IntArray:
    """Return the fewest windows (c, T) that cover a tracklet, evenly spaced and overlapping rather than padded.

    A tracklet shorter than T gives one window whose frames from `length` on do not exist.
    """
    count = max(1, -(-length // T))
    starts = np.linspace(0, max(0, length - T), count).round().astype(np.int64)
    return starts[:, None] + np.arange(T)


def chosen_clips(clips_cT: IntArray, limit: int, row: int) -> IntArray:
    """Select at most `limit` clips in order, drawn without replacement and seeded by the tracklet's row; 0 = all."""
    if limit == 0 or len(clips_cT) <= limit:
        return clips_cT
    rng = np.random.default_rng([row, 0xC11B5])
    return clips_cT[np.sort(rng.choice(len(clips_cT), limit, replace=False))]


def _cyclic(start: int, available: int, T: int) -> IntArray:
    return start + np.arange(T) % available
