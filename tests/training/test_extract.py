"""Every tracklet once, whatever the order: what extraction promises beside bit-equality (see test_ddp)."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small import small_config

from sptskm.common.endings import Stopped
from sptskm.data.clips import PIECE, AllClips, Piece
from sptskm.data.files import DataError
from sptskm.training import extract as extraction
from sptskm.training.extract import deal, extract
from sptskm.training.setup import Setup
from sptskm.training.world import World


def embeddings(walkers: Path, tmp_path: Path, stream: str, *overrides: str):
    config = small_config(stream, walkers, tmp_path / "run", *overrides)
    setup = Setup.of(config, World(), training=False)
    torch.manual_seed(0)
    return setup, extract(setup.stream.model(3), setup.stream, setup.source, setup.table.test, config, World())


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("tracklets", [0, 1, 3, 7, 40])
def test_dealing_gives_every_tracklet_to_exactly_one_rank(world, tracklets):
    rng = np.random.default_rng(0)
    pieces = [[Piece(n, 0, int(rng.integers(1, 40)))] for n in range(tracklets)]
    dealt = [own for share in deal(pieces, world) for own in share]
    assert sorted(own[0].row for own in dealt) == list(range(tracklets))


def test_ranks_get_similar_amounts_of_work():
    pieces = [[Piece(n, 0, 1 + n % 50)] for n in range(400)]
    clips = [sum(p.last for own in share for p in own) for share in deal(pieces, 4)]
    assert max(clips) < 1.05 * min(clips)


def test_rows_are_unit_vectors_and_junk_without_any_skeleton_keeps_its_row(walkers, tmp_path):
    setup, found = embeddings(walkers, tmp_path, "smin")
    assert len(found.features_ND) == len(setup.table.test)
    assert 0 < (~found.valid_N).sum() < len(found.valid_N)
    np.testing.assert_allclose(np.linalg.norm(found.features_ND[found.valid_N], axis=1), 1, rtol=1e-5)
    assert not found.features_ND[~found.valid_N].any()


def test_published_clip_mean_is_not_renormalised(walkers, tmp_path):
    _, found = embeddings(walkers, tmp_path, "ssin", "extract.renormalise=false")
    assert (np.linalg.norm(found.features_ND, axis=1) < 1).any()


def test_a_limit_of_clips_is_drawn_by_seed_and_changes_the_features(walkers, tmp_path):
    _, everything = embeddings(walkers, tmp_path, "ssin")
    _, limited = embeddings(walkers, tmp_path, "ssin", "extract.clips=2")
    _, again = embeddings(walkers, tmp_path, "ssin", "extract.clips=2")
    assert np.array_equal(limited.features_ND, again.features_ND)
    assert not np.array_equal(limited.features_ND, everything.features_ND)


def test_a_lost_clip_is_noticed(walkers, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "deal", lambda pieces, world: [share[1:] for share in deal(pieces, world)])
    with pytest.raises(RuntimeError, match=r"0 clips were embedded, wanted \d+"):
        embeddings(walkers, tmp_path, "ssin")


def test_long_tracklets_are_split_into_pieces_that_cover_them(walkers, tmp_path):
    setup, _ = embeddings(walkers, tmp_path, "ssin", "clips.frames=1")
    clips = AllClips(setup.source, limit=0)
    row = int(np.argmax(setup.table.lengths))
    pieces = clips.pieces(row)
    assert (pieces[0].first, pieces[0].last) == (0, min(PIECE, setup.table.lengths[row]))
    assert pieces[-1].last == setup.table.lengths[row]


def test_a_broken_frame_ends_extraction_with_its_path(walkers, tmp_path):
    import shutil

    copy = tmp_path / "walkers"
    shutil.copytree(walkers, copy)
    broken = next((copy / "bbox_test").rglob("*.jpg"))
    broken.write_bytes(b"not a jpeg")
    with pytest.raises(DataError, match=str(broken)):
        embeddings(copy, tmp_path, "ssin")


class OnGpu(World):
    """A rank that says it has a GPU, and stops before anything gets there."""

    @property
    def device(self):
        return torch.device("cuda")

    def any(self, flag):  # noqa: ARG002
        return True


@pytest.mark.parametrize("world", [World(), OnGpu()])
def test_a_network_embeds_channels_last_on_a_gpu_and_only_there(walkers, tmp_path, world):
    config = small_config("smin", walkers, tmp_path / "run", "train.precision=float32")
    setup = Setup.of(config, World(), training=False)
    model = setup.stream.model(3)
    weight = model.backbone.st_gcn_networks[5].tcn[2].weight
    with pytest.raises(Stopped) if isinstance(world, OnGpu) else nullcontext():
        extract(model, setup.stream, setup.source, setup.table.test, config, world)
    assert weight.is_contiguous(memory_format=torch.channels_last) is isinstance(world, OnGpu)


def test_pieces_in_pinned_memory_are_on_the_device_before_they_are_joined(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda x: x.dtype == torch.uint8)
    pieces = [(torch.zeros(clips, 3, dtype=torch.uint8), torch.ones(clips)) for clips in (2, 1)]
    joined, told = [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: joined.extend(part.is_meta for part in parts) or told(parts))
    frames, valid = extraction._join(pieces, torch.device("meta"))
    assert joined == [True, True, False, False]
    assert (frames.shape, frames.is_meta) == ((3, 3), True)
    assert valid.tolist() == [1, 1, 1]
