"""Plan a synthetic data set: decide which person passes which camera in which clothes."""

from collections import Counter
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Annotated

import numpy as np
from pydantic import Field

from sptskm.common.settings import refuse, settings
from sptskm.synthetic.drawing import Outfit, draw_outfit, dyed
from sptskm.synthetic.filming import FLAWS
from sptskm.synthetic.walkers import Walker, draw_walker

# How many cameras see each of a person's three outfits, by the number of cameras that see the person. With a share of 1
# the queries from that camera are clothes-changed: no other camera shows the outfit. Identities take turns, so that
# about half of all queries are clothes-changed.
_WARDROBES = {
    2: ((2,), (1, 1)),
    3: ((2, 1), (1, 1, 1), (2, 1)),
    4: ((2, 1, 1),),
    5: ((3, 1, 1),),
    6: ((4, 1, 1),),
}
_SHADE = 10.0

# Seeds of random streams other than those of the tracklets, which are numbered from 0.
_POOL, _PEOPLE, _EXTRAS = 1_000_000, 2_000_000, 3_000_000


People = Annotated[int, Field(ge=1, le=4999)]
Number = Annotated[int, Field(ge=1, le=9999)]
Length = Annotated[int, Field(ge=1, le=999)]
Extras = Annotated[int, Field(ge=0, le=9999)]


@settings
class Sizes:
    """The size of a synthetic data set; pairs are the smallest and largest value of a range, both included."""

    train_ids: People
    test_ids: People
    cameras: Annotated[int, Field(ge=2, le=6)]
    tracklets_per_camera: tuple[Number, Number]
    """Of each identity in each camera that sees it."""
    frames: tuple[Length, Length]
    distractors: Extras
    """Test tracklets of people who are no query."""
    junk: Extras
    """Test tracklets that show nobody."""

    def __post_init__(self) -> None:
        for name in ("tracklets_per_camera", "frames"):
            first, last = getattr(self, name)
            if first > last:
                refuse([f"{name} is {first} {last}, wanted the smaller number first"])


@dataclass(frozen=True)
class Role:
    """A tracklet to film; `index` is its row in its split's table, from 0."""

    split: str
    index: int
    pid: int
    camid: int
    number: int
    frames: int
    walker: Walker
    outfit: Outfit
    clothes: str
    flaw: str
    query: bool

    @property
    def label(self) -> str:
        """Return the name of the identity's folder: four digits, or 00-1 for junk."""
        return "00-1" if self.pid == -1 else f"{self.pid:04d}"

    def stems(self) -> list[str]:
        """Return the names of the frames without a suffix."""
        start = f"{self.label}C{self.camid}T{self.number:04d}"
        return [f"{start}F{frame:03d}" for frame in range(1, self.frames + 1)]


def cast(sizes: Sizes, split: str, seed: int) -> list[Role]:
    """Plan the tracklets of the split "train" or "test" in the order of its table, sorted by id.

    One tracklet per identity and camera of the test split is a query. Test ids are even, train ids odd; junk and
    distractors are in test only.
    """
    identities = sizes.test_ids if split == "test" else sizes.train_ids
    stream = [seed, int(split == "test")]
    pool = _outfit_pool(identities, np.random.default_rng([*stream, _POOL]))
    roles = _extras(sizes, pool, np.random.default_rng([*stream, _EXTRAS])) if stream[1] else []
    for number in range(identities):
        rng = np.random.default_rng([*stream, _PEOPLE + number])
        pid = 2 * number + (2 if split == "test" else 1)
        roles += _appearances(sizes, split, pid, pool, rng)
    roles.sort(key=lambda role: (role.pid, role.camid, role.number))
    return [replace(role, index=index) for index, role in enumerate(roles)]


def _outfit_pool(identities: int, rng: np.random.Generator) -> list[Outfit]:
    """Draw one outfit per identity, at least three; an outfit is worn, in different shades, by about three identities.

    An identity has three outfits.
    """
    return [draw_outfit(rng) for _ in range(max(3, identities))]


def _wardrobe(sizes: Sizes, turn: int) -> tuple[int, ...]:
    """Return the number of cameras that see each outfit of an identity; `turn` is the number of the identity."""
    least, most = max(2, sizes.cameras // 2), max(2, sizes.cameras - 1)
    seen = least + turn % (most - least + 1)
    choices = _WARDROBES[seen]
    return choices[turn // (most - least + 1) % len(choices)]


def _appearances(sizes: Sizes, split: str, pid: int, pool: list[Outfit], rng: np.random.Generator) -> list[Role]:
    walker = draw_walker(rng)
    worn = rng.choice(len(pool), 3, replace=False)
    outfits = [dyed(pool[index], _SHADE, rng) for index in worn]
    shares = _wardrobe(sizes, (pid - 1) // 2)
    days = np.repeat(np.arange(len(shares)), shares)
    cameras = 1 + rng.permutation(sizes.cameras)[: len(days)]
    roles = []
    for camid, day in zip(cameras.tolist(), days.tolist(), strict=True):
        low, high = sizes.tracklets_per_camera
        count = int(rng.integers(low, high + 1))
        queried = int(rng.integers(1, count + 1))
        for number in range(1, count + 1):
            role = Role(
                split=split,
                index=0,
                pid=pid,
                camid=camid,
                number=number,
                frames=_length(sizes, rng),
                walker=walker,
                outfit=outfits[day],
                clothes=f"{pid}-{ascii_lowercase[day]}",
                flaw="none",
                query=split == "test" and number == queried,
            )
            roles.append(role)
    return roles


def _extras(sizes: Sizes, pool: list[Outfit], rng: np.random.Generator) -> list[Role]:
    """Plan the distractors (pid 0, other people) and junk (pid -1, bad boxes of other people)."""
    roles: list[Role] = []
    numbers: Counter[tuple[int, int]] = Counter()
    for pid in [-1] * sizes.junk + [0] * sizes.distractors:
        camid = int(rng.integers(1, sizes.cameras + 1))
        numbers[pid, camid] += 1
        role = Role(
            split="test",
            index=0,
            pid=pid,
            camid=camid,
            number=numbers[pid, camid],
            frames=_length(sizes, rng),
            walker=draw_walker(rng),
            outfit=dyed(pool[rng.integers(len(pool))], _SHADE, rng),
            clothes="",
            flaw="none" if pid == 0 else str(rng.choice(FLAWS[1:])),
            query=False,
        )
        roles.append(role)
    return roles


def _length(sizes: Sizes, rng: np.random.Generator) -> int:
    low, high = sizes.frames
    return int(rng.integers(low, high + 1))
