"""Which tracklets a step sees. Legend: P identities, K tracklets of each, G = P*K, S steps."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from sptskm.config import ConfigError, Sampling
from sptskm.data.sampler import Batch, Draw, Schedule, epoch_batches, num_batches, shard

# identities 10..20, of which identity 10 + i has i + 1 tracklets; rows are not 0, 1, 2, ...
PIDS = np.repeat(np.arange(10, 21), np.arange(1, 12))
ROWS = 1000 - 3 * np.arange(len(PIDS))
P, K = 4, 2
SAMPLING = Sampling(identities=P, tracklets=K)
SHUFFLED = Sampling(kind="shuffled", identities=P, tracklets=K)
PID_OF = dict(zip(ROWS.tolist(), PIDS.tolist(), strict=True))

Batches = NDArray[np.int64]


def batches(epoch: int = 0, seed: int = 0, sampling: Sampling = SAMPLING) -> Batches:
    return epoch_batches(sampling, ROWS, PIDS, epoch, seed)


def schedule(rank: int = 0, world: int = 1, epochs: int = 3, sampling: Sampling = SAMPLING) -> Schedule:
    return Schedule(sampling, ROWS, PIDS, epochs, seed=0, rank=rank, world=world)


def drawn(steps: Iterator[list[Draw]]) -> list[list[Draw]]:
    return list(islice(steps, 100))


@pytest.mark.parametrize("epoch", range(5))
def test_every_batch_holds_p_identities_k_times_each(epoch: int) -> None:
    for batch in batches(epoch):
        pids = np.array([PID_OF[row] for row in batch.tolist()]).reshape(P, K)
        assert (pids == pids[:, :1]).all()
        assert len(set(pids[:, 0].tolist())) == P


def test_tracklets_repeat_only_where_an_identity_has_fewer_than_k() -> None:
    repeated = set()
    for epoch in range(20):
        for group in batches(epoch).reshape(-1, K).tolist():
            if len(set(group)) < K:
                repeated.add(PID_OF[group[0]])
    assert repeated == {10}, "identity 10 has one tracklet, all others have at least two"


def test_no_identity_comes_twice_in_a_round_and_the_rest_is_dropped() -> None:
    ids = [PID_OF[row] for row in batches()[..., ::K].ravel().tolist()]
    assert len(ids) == len(set(ids)) == 11 // P * P
    assert batches().shape == (11 // P, P * K)
    seen = {PID_OF[row] for epoch in range(20) for row in batches(epoch).ravel().tolist()}
    assert seen == set(PIDS.tolist()), "who is dropped changes from epoch to epoch"


def test_all_tracklets_of_an_identity_are_drawn_sooner_or_later() -> None:
    seen = {row for epoch in range(60) for row in batches(epoch).ravel().tolist()}
    assert seen == set(ROWS.tolist())


def test_rounds_multiply_the_epoch() -> None:
    sampling = Sampling(identities=P, tracklets=K, rounds=3)
    many = batches(sampling=sampling)
    assert len(many) == num_batches(sampling, ROWS, PIDS) == 3 * (11 // P)
    assert not np.array_equal(many[:2], many[2:4])


def test_same_seed_same_batches_and_other_epochs_and_seeds_differ() -> None:
    np.testing.assert_array_equal(batches(1, 7), batches(1, 7))
    assert not np.array_equal(batches(1, 7), batches(2, 7))
    assert not np.array_equal(batches(1, 7), batches(1, 8))


def test_the_rows_of_an_identity_need_not_be_sorted() -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    for batch in epoch_batches(SAMPLING, ROWS[order], PIDS[order], 0, 0):
        assert len({PID_OF[row] for row in batch.tolist()}) == P


def test_a_shuffled_epoch_sees_every_tracklet_at_most_once() -> None:
    shuffled = batches(sampling=SHUFFLED)
    assert shuffled.shape == (len(ROWS) // (P * K), P * K)
    rows = shuffled.ravel().tolist()
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(ROWS.tolist())
    assert not np.array_equal(shuffled, batches(1, sampling=SHUFFLED))
    twice = batches(sampling=Sampling(kind="shuffled", identities=P, tracklets=K, rounds=2))
    assert len(twice) == 2 * len(ROWS) // (P * K)
    assert np.unique(twice, return_counts=True)[1].max() == 2


@pytest.mark.parametrize("sampling", [SAMPLING, SHUFFLED])
@pytest.mark.parametrize("world", [2, 4])
def test_the_union_over_ranks_is_the_same_for_every_number_of_ranks(sampling: Sampling, world: int) -> None:
    alone = drawn(schedule(sampling=sampling).from_step(0))
    ranks = [drawn(schedule(rank, world, sampling=sampling).from_step(0)) for rank in range(world)]
    together = [[draw for part in parts for draw in part] for parts in zip(*ranks, strict=True)]
    assert together == alone
    assert all(len(part) == P * K // world for rank in ranks for part in rank)


def test_an_identitys_clips_stay_on_one_rank_where_they_can() -> None:
    for step in schedule(rank=1, world=4).from_step(0):
        assert len({PID_OF[draw.row] for draw in step}) == 1


@pytest.mark.parametrize("step", range(7))
def test_continuing_at_a_step_gives_exactly_the_rest(step: int) -> None:
    whole = drawn(schedule().from_step(0))
    assert len(whole) == 3 * schedule().per_epoch == 6
    assert drawn(schedule().from_step(step)) == whole[step:]


def test_positions_number_the_clips_of_an_epoch() -> None:
    draws = [draw for step in schedule().from_step(0) for draw in step]
    places = [(draw.epoch, draw.position) for draw in draws]
    assert places == [(epoch, position) for epoch in range(3) for position in range(2 * P * K)]


def test_every_draw_has_its_own_repeatable_randomness() -> None:
    draw = Draw(row=5, epoch=2, position=3)
    value = draw.generator(0).random()
    assert value == draw.generator(0).random()
    others = [draw._replace(epoch=3), draw._replace(position=4)]
    assert len({value, draw.generator(1).random(), *(other.generator(0).random() for other in others)}) == 4


def test_every_batch_has_its_own_repeatable_randomness_and_not_that_of_the_order_of_its_epoch() -> None:
    batch = Batch(ROWS, np.arange(4), epoch=2, number=0)
    value = batch.generator(1).random()
    assert value == batch._replace(slots_B=np.arange(2)).generator(1).random()
    others = [batch.generator(0), batch._replace(epoch=3).generator(1), batch._replace(number=1).generator(1)]
    order = np.random.default_rng([1, 2])  # as in epoch_batches
    assert len({value, *(rng.random() for rng in [*others, order])}) == 5


def test_too_few_identities_or_tracklets_name_the_setting() -> None:
    with pytest.raises(ConfigError, match=r"12 x 2, but there are only 11 training identities, wanted 12"):
        num_batches(Sampling(identities=12, tracklets=2), ROWS, PIDS)
    with pytest.raises(ConfigError, match=r"67 x 1, but there are only 66 tracklets, wanted 67"):
        batches(sampling=Sampling(kind="shuffled", identities=67, tracklets=1))


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"global batch of 8 clips .* does not divide over 3 ranks"):
        shard(np.arange(8), 0, 3)
