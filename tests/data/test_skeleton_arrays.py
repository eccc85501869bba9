"""Data sets of skeletons alone: read, checked, loaded and split without a frame."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from sptskm.cli import main
from sptskm.common.errors import DataError
from sptskm.data import read_dataset
from sptskm.data.check import check_dataset
from sptskm.data.skeleton_store import load_skeletons

LENGTHS = {"anna-1": 3, "anna-2": 12, "bob-1": 4, "bob-2": 2}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Walks of two people, one of them in a file a frame."""
    lines = ["tracklet,pid,camera,split,skeleton"]
    for number, (name, length) in enumerate(LENGTHS.items()):
        skeletons = np.random.default_rng(number).uniform(0.1, 1, (length, 14, 4))
        place = f"{name}.npy"
        if name == "bob-1":
            place = name
            (tmp_path / name).mkdir()
            for frame, skeleton in enumerate(skeletons):
                scipy.io.savemat(tmp_path / name / f"{frame}.mat", {"new_joint": skeleton})
        else:
            np.save(tmp_path / place, skeletons)
        pid, camera = name.split("-")
        lines.append(f"{name},{pid},{camera},train,{place}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    return tmp_path / "m.csv"


def test_skeletons_alone_are_a_data_set_for_smin(manifest: Path) -> None:
    table = read_dataset(manifest)
    assert table.lengths.tolist() == list(LENGTHS.values())
    assert table.stems(0) == ["000001", "000002", "000003"]
    assert table.stems(2) == ["0", "1", "2", "3"]
    assert load_skeletons(table, table.train).has_any(table.train).all()
    report = check_dataset(manifest, workers=1)
    assert report.ok, report.text()
    assert {count.modality for count in report.counts if count.absent} == {"frames", "masks"}


def test_they_are_split_by_identity_into_a_manifest_elsewhere(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "split.csv"
    out.parent.mkdir()
    assert main(["import", "manifest", str(manifest), str(out), "--test-share", "1"]) == 0
    assert check_dataset(out, workers=1).ok
    assert len(read_dataset(out).test) == len(LENGTHS)


def test_a_pack_of_them_is_refused_in_a_sentence(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(manifest), str(tmp_path / "pack")]) == 2
    assert "the data set has no frames, wanted some" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "anna-1.npy: no such file, wanted those of a tracklet without frames"),
        (np.ones((14, 4)), "anna-1.npy: is float64 .*, wanted .*frames, 14, 4"),
        (np.ones((0, 14, 4)), "anna-1.npy: holds none, wanted some"),
        (b"x", "anna-1.npy: corrupt, not a readable .npy file"),
    ],
)
def test_skeletons_that_say_no_number_of_frames_are_named(manifest: Path, content: object, sentence: str) -> None:
    path = manifest.parent / "anna-1.npy"
    path.unlink()
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises((DataError, FileNotFoundError), match=sentence):
        read_dataset(manifest)


def test_a_line_without_frames_and_skeleton_is_refused(manifest: Path) -> None:
    manifest.write_text(manifest.read_text() + "\nx,anna,1,train,\n")
    with pytest.raises(DataError, match="line 6 has no frames"):
        read_dataset(manifest)
