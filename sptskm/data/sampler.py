"""Sample the tracklets of each training step by pure functions of (seed, epoch): no state, no process group.

The configuration gives the size of the global batch. A rank takes its share of every batch, so that the union over
ranks is the same for every number of ranks. Legend: S batches of an epoch, G = P*K clips of the global batch, B clips
of one rank.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sptskm.config import ConfigError, Sampling
from sptskm.data.tracklets import IntArray


class Draw(NamedTuple):
    """A clip to be cut; all its random choices follow from (seed, epoch, position)."""

    row: int
    epoch: int
    position: int
    """Number of the clip in its epoch, the same for every number of ranks."""

    def generator(self, seed: int) -> np.random.Generator:
        """Return the random generator for this clip's window and augmentation."""
        return np.random.default_rng([seed, self.epoch, 1 + self.position])


class Batch(NamedTuple):
    """A global batch and one rank's part of it; all random choices for its clips follow from (seed, epoch, number)."""

    rows_G: IntArray
    slots_B: IntArray
    """Positions of this rank's clips in `rows_G`."""
    epoch: int
    number: int
    """Number of the batch in its epoch, from 0."""

    def generator(self, seed: int) -> np.random.Generator:
        """Return the one random generator for all G clips.

        The last seed starts at 1, because [seed, epoch, 0] is the generator of the epoch's order.
        """
        return np.random.default_rng([seed, self.epoch, 1 + self.number])


def num_batches(sampling: Sampling, rows: IntArray, pids: IntArray) -> int:
    """Return the number of batches per epoch. Raises ConfigError if there is not enough for one."""
    P, K = sampling.identities, sampling.tracklets
    if sampling.kind == "shuffled":
        batches, have, want = sampling.rounds * len(rows) // (P * K), f"{len(rows)} tracklets", P * K
    else:
        identities = len(np.unique(pids))
        batches, have, want = sampling.rounds * (identities // P), f"{identities} training identities", P
    if batches == 0:
        raise ConfigError(
            f"sampling.identities x sampling.tracklets is {P} x {K}, but there are only {have}, wanted {want}"
        )
    return batches


def epoch_batches(sampling: Sampling, rows: IntArray, pids: IntArray, epoch: int, seed: int) -> IntArray:
    """Draw the rows of all global batches of an epoch (S, P*K).

    "identities": each round is a random permutation of the identities, with K tracklets of each, drawn without
    replacement if the identity has K tracklets and with replacement otherwise. "shuffled": each round is a random
    permutation of all tracklets. Identities or tracklets that do not fill a batch are left out.
    """
    rng = np.random.default_rng([seed, epoch])
    S, G = num_batches(sampling, rows, pids), sampling.identities * sampling.tracklets
    if sampling.kind == "shuffled":
        return np.concatenate([rng.permutation(rows) for _ in range(sampling.rounds)])[: S * G].reshape(S, G)
    order = np.argsort(pids, kind="stable")
    _, first = np.unique(pids[order], return_index=True)
    groups = np.split(rows[order], first[1:])
    rounds = [_identity_round(groups, sampling, rng) for _ in range(sampling.rounds)]
    return np.concatenate(rounds).reshape(S, G)


def _identity_round(groups: list[IntArray], sampling: Sampling, rng: np.random.Generator) -> IntArray:
    P, K = sampling.identities, sampling.tracklets
    chosen = rng.permutation(len(groups))[: len(groups) // P * P]
    return np.stack([rng.choice(groups[i], K, replace=len(groups[i]) < K) for i in chosen])


def shard(batch_G: IntArray, rank: int, world: int) -> IntArray:
    """Return the positions in a global batch that belong to `rank`; they are contiguous, so identities stay together.

    Raises ConfigError if the batch cannot be divided evenly over the ranks.
    """
    if len(batch_G) % world:
        raise ConfigError(
            f"the global batch of {len(batch_G)} clips (sampling.identities x sampling.tracklets) "
            f"does not divide over {world} ranks"
        )
    share = len(batch_G) // world
    return np.arange(rank * share, (rank + 1) * share)


class Schedule(NamedTuple):
    """All batches of a run for one rank, starting from any step; the data loader iterates over them."""

    sampling: Sampling
    rows: IntArray
    pids: IntArray
    epochs: int
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def per_epoch(self) -> int:
        """Return the number of steps per epoch."""
        return num_batches(self.sampling, self.rows, self.pids)

    def batches(self, step: int) -> Iterator[Batch]:
        """Yield every batch from global step `step` to the end of the last epoch."""
        per_epoch = self.per_epoch
        for epoch in range(step // per_epoch, self.epochs):
            batches = epoch_batches(self.sampling, self.rows, self.pids, epoch, self.seed)
            for index in range(step - epoch * per_epoch if epoch == step // per_epoch else 0, per_epoch):
                yield Batch(batches[index], shard(batches[index], self.rank, self.world), epoch, index)

    def from_step(self, step: int) -> Iterator[list[Draw]]:
        """Yield this rank's part of every batch from global step `step` on, as one Draw per clip."""
        for rows_G, slots_B, epoch, number in self.batches(step):
            yield [Draw(int(rows_G[slot]), epoch, number * len(rows_G) + int(slot)) for slot in slots_B]
