"""Clips of frames and masks as tensors. Legend: c clips, T frames, H rows, W columns."""

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.handmade import Walk, write_files, write_tables
from torch.utils.data import DataLoader

from sptskm.common.errors import DataError
from sptskm.config import SsinClips
from sptskm.data import Tracklets, clips, read_mars
from sptskm.data.augment import CROP, show_together
from sptskm.data.files import read_frame
from sptskm.data.packs.reading import read_pack
from sptskm.data.packs.writing import pack
from sptskm.data.sampler import Draw

SSIN = SsinClips(frames=2, height=32, width=16)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sptskm.data.files.PAUSE_S", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "mars")


@pytest.fixture
def table(root: Path) -> Tracklets:
    return read_mars(root)


def drawn(source: clips.FrameSource, row: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A training clip: frames (T, H, W, 3) and masks (T, H, W)."""
    (frames,), (masks,), *_ = source.memory(1)
    source.draw(row, np.random.default_rng(seed), frames, masks)
    return frames, masks


def test_a_batch_is_uint8_frames_and_masks_of_the_wanted_size_and_their_rows(table: Tracklets) -> None:
    data = clips.TrainClips(clips.FrameSource(table, replace(SSIN, height=40, width=24)), seed=0)
    (frames, masks), rows = data[[Draw(2, 0, 0), Draw(0, 0, 1), Draw(3, 0, 2)]]
    assert (frames.shape, masks.shape) == ((3, 2, 40, 24, 3), (3, 2, 40, 24))
    assert frames.dtype == masks.dtype == torch.uint8
    assert rows.tolist() == [2, 0, 3]


def test_test_clips_are_the_dense_clips_in_order_frame_beside_mask(table: Tracklets) -> None:
    source = clips.FrameSource(table, SSIN)
    frames, masks = source.read(1, source.all_clips(1))  # 3 frames of brightness 20, 30 and 40
    assert (frames.shape, masks.shape) == ((2, 2, 32, 16, 3), (2, 2, 32, 16))
    assert frames.float().mean(dim=(2, 3, 4)).round().tolist() == [[20, 30], [40, 40]]
    assert (masks[..., :14, :] == 255).all()  # the edge between is blurred by resizing
    assert not masks[..., 18:, :].any()


def test_frames_arrive_red_green_blue(table: Tracklets) -> None:
    path = table.path(3, 0, "frames")
    path.write_bytes(cv2.imencode(".png", np.full((16, 8, 3), (10, 90, 200), np.uint8))[1].tobytes())
    frames, _ = clips.FrameSource(table, SSIN).read(3, np.array([[0, 0]]))
    assert frames[0, 0, 0, 0].tolist() == [200, 90, 10]


def test_the_last_frame_is_drawn_unless_the_published_sampling_is_chosen(table: Tracklets) -> None:
    for last_window in (True, False):
        source = clips.FrameSource(table, replace(SSIN, last_window=last_window))
        seen = {round(drawn(source, 2, seed)[0][-1].float().mean().item()) for seed in range(30)}
        assert (80 in seen) is last_window, "row 2 has frames of brightness 50 to 80"


def test_the_same_draw_gives_the_same_clip_and_another_gives_another(walkers: Path) -> None:
    table = read_mars(walkers)
    data = clips.TrainClips(clips.FrameSource(table, replace(SSIN, height=64, width=32)), seed=3)
    draw = Draw(row=1, epoch=2, position=5)
    one, again = data[[draw]], data[[draw]]
    assert one.row == 1
    for a, b in zip(one.inputs, again.inputs, strict=True):
        assert torch.equal(a, b)
    others = [data[[draw._replace(position=6)]], data[[draw._replace(epoch=3)]], replace(data, seed=4)[[draw]]]
    for other in others:
        assert not torch.equal(one.inputs[0], other.inputs[0])


@pytest.mark.parametrize("size", [(256, 128), (64, 32)])
def test_what_is_left_to_the_device_gives_the_same_clips(walkers: Path, size: tuple[int, int]) -> None:
    clip = SsinClips(frames=2, height=size[0], width=size[1])  # of the files' size, and not
    here = clips.FrameSource(read_mars(walkers), clip)
    draws = [Draw(row=row, epoch=0, position=row) for row in range(12)]
    frames, masks = clips.TrainClips(here, seed=0)[draws].inputs
    raw_frames, raw_masks, views = clips.TrainClips(replace(here, on_device=True), seed=0)[draws].inputs
    assert torch.equal(raw_frames, frames) is (size != (256, 128))
    shown_frames, shown_masks = show_together(raw_frames, views), show_together(raw_masks[..., None], views)[..., 0]
    for found, wanted in ((shown_frames, frames), (shown_masks, masks)):
        assert (found.int() - wanted.int()).abs().max() <= 1  # not 0, see test_augment


def test_a_clip_whose_frames_differ_in_size_is_not_left_to_the_device(table: Tracklets) -> None:
    for modality, channels in (("frames", 3), ("masks", 1)):
        image = np.random.default_rng(0).integers(0, 256, (30, 20, channels), dtype=np.uint8)
        table.path(0, 1, modality).write_bytes(cv2.imencode(".png", image)[1].tobytes())  # type: ignore[arg-type]
    here = clips.FrameSource(table, SSIN)
    draws = [Draw(0, 0, position) for position in range(8)]
    wanted = clips.TrainClips(here, seed=0)[draws].inputs
    frames, masks, views = clips.TrainClips(replace(here, on_device=True), seed=0)[draws].inputs
    assert torch.equal(frames, wanted[0])
    assert torch.equal(masks, wanted[1])
    assert not views[:, :CROP].any()


def test_loader_processes_give_the_same_batches_from_a_pack_and_leave_the_one_in_use_alone(
    walkers: Path, tmp_path: Path
) -> None:
    table, folder = read_mars(walkers), tmp_path / "pack"
    pack(table, folder, workers=1)
    packed = clips.TrainClips(clips.FrameSource(read_pack(folder), SSIN), seed=0)
    plain = clips.TrainClips(clips.FrameSource(table, SSIN), seed=0)
    batches = [[Draw((3 * n + k) % 20, 0, 3 * n + k) for k in range(3)] for n in range(4 * clips.RING)]
    loader = DataLoader(packed, batch_size=None, sampler=batches, num_workers=2)  # type: ignore[arg-type]
    for draws, batch in zip(batches, loader, strict=True):
        time.sleep(0.01)  # in which the loader processes get as far ahead as they may
        wanted = plain[draws]
        assert torch.equal(batch.row, wanted.row)
        for a, b in zip(batch.inputs, wanted.inputs, strict=True):
            assert torch.equal(a, b)


def test_a_loader_process_writes_to_the_same_memory_again(table: Tracklets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "get_worker_info", lambda: "one")
    data = clips.TrainClips(clips.FrameSource(table, SSIN), seed=0)
    batches = [data[[Draw(0, 0, n)]].inputs for n in range(2 * clips.RING)]
    places = [frames.data_ptr() for frames, _ in batches]
    assert len(set(places)) == clips.RING
    assert places[: clips.RING] == places[clips.RING :]
    assert all(x.is_shared() for x in batches[0])
    assert data[[Draw(0, 0, 0), Draw(1, 0, 1)]].inputs[0].shape[0] == 2


def test_pieces_hold_every_clip_once_and_at_most_16(tmp_path: Path) -> None:
    table = read_mars(write_tables(tmp_path, train=[Walk(1, 1, 70), Walk(1, 2, 32), Walk(3, 1, 2)]))
    data = clips.AllClips(clips.FrameSource(table, SSIN), limit=0)
    spans = [[(piece.first, piece.last) for piece in data.pieces(row)] for row in range(3)]
    assert spans == [[(0, 16), (16, 32), (32, 35)], [(0, 16)], [(0, 1)]]
    few = replace(data, limit=5)
    assert [(piece.first, piece.last) for piece in few.pieces(0)] == [(0, 5)]


def test_a_piece_reads_its_own_clips(table: Tracklets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "PIECE", 1)
    data = clips.AllClips(clips.FrameSource(table, SSIN), limit=0)
    pieces = data.pieces(1)
    assert len(pieces) == 2
    brightness = [data[piece].inputs[0].float().mean(dim=(2, 3, 4)).round().tolist() for piece in pieces]
    assert brightness == [[[20, 30]], [[40, 40]]]
    assert [data[piece].piece for piece in pieces] == pieces


@pytest.mark.parametrize(("modality", "kind"), [("frames", "frame"), ("masks", "mask")])
@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_file_that_cannot_be_used_is_one_sentence_with_its_path(
    table: Tracklets, modality: str, kind: str, damage: str
) -> None:
    path = table.path(1, 1, modality)  # type: ignore[arg-type]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"not an image")
    wanted = rf"^{kind} {path}: (no such file \(after 3 attempts\)|corrupt, not a readable image)$"
    source = clips.FrameSource(table, SSIN)
    with pytest.raises(DataError, match=wanted):
        source.read(1, source.all_clips(1))
    with pytest.raises(DataError, match=wanted):
        drawn(source, 1)


def test_a_mask_of_another_size_than_its_frame_is_refused(table: Tracklets) -> None:
    path = table.path(0, 1, "masks")
    path.write_bytes(cv2.imencode(".png", np.zeros((8, 16), np.uint8))[1].tobytes())
    wanted = rf"^mask {path}: is 8x16, wanted 16x8 like {table.path(0, 1, 'frames').name}$"
    with pytest.raises(DataError, match=wanted):
        drawn(clips.FrameSource(table, SSIN), 0)


def test_a_frame_that_occurs_twice_in_a_clip_is_read_once(table: Tracklets, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(clips, "read_frame", lambda file: seen.append(file.name) or read_frame(file))
    frames, _ = drawn(clips.FrameSource(table, replace(SSIN, frames=5)), 1)
    assert sorted(seen) == sorted(set(seen))
    assert len(seen) == 3
    assert torch.equal(frames[:2], frames[3:])


def test_the_generated_data_set_gives_clips(walkers: Path) -> None:
    frames, masks = drawn(clips.FrameSource(read_mars(walkers), replace(SSIN, height=64, width=32)), 0)
    assert frames.float().std() > 10
    assert 0.02 < (masks == 255).float().mean() < 0.9
