"""The simulated depth sensor: what it writes can be trained on, and its baselines are compared as SMIN is."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import sensor  # noqa: E402

from sptskm.data import read_dataset  # noqa: E402
from sptskm.data.skeleton_scale import unit_of  # noqa: E402

PEOPLE = 6


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sensor.write(tmp_path_factory.mktemp("walks"), 3, PEOPLE)


def test_half_of_the_people_train_and_one_normal_walk_of_each_other_is_the_gallery(manifest: Path) -> None:
    table = read_dataset(manifest)
    assert table.num_train == PEOPLE // 2 * len(sensor.KINDS)
    assert len(table.query) == PEOPLE // 2 * (len(sensor.KINDS) - 1)
    assert not set(table.pids_N[table.train]) & set(table.pids_N[table.test])
    assert unit_of("auto", table) == 1.0
    assert table.fps(0) == sensor.RATE


def test_a_seed_gives_the_same_walks_and_another_one_others() -> None:
    first, again, other = (next(sensor.walks(seed, 1)).skeletons_FV4 for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.allclose(first, other)


def test_without_noise_bone_lengths_find_everybody_and_with_much_noise_fewer(tmp_path: Path) -> None:
    exact = sensor.baselines(sensor.write(tmp_path / "exact", 3, PEOPLE, noise=0.0))
    poor = sensor.baselines(sensor.write(tmp_path / "poor", 3, PEOPLE, noise=4.0))
    assert exact["bone lengths"] == exact["bone lengths, standardised"] == (100.0, 100.0)
    assert all(poor[name][1] < 80 for name in poor)


def test_gaits_that_change_more_keep_what_must_be_positive() -> None:
    calm, wild = (list(sensor.walks(4, 2, noise=0.0, change=change)) for change in (1.0, 2.5))
    assert [walk.kind for walk in calm] == [walk.kind for walk in wild]
    rng = np.random.default_rng(0)
    gait = sensor.draw_walker(rng).gait
    changed = sensor.altered(gait, "arms still", rng)
    much = sensor.further(gait, changed, 2.0)
    assert much.elbow - gait.elbow == pytest.approx(2 * (changed.elbow - gait.elbow))
    assert much.arm_swing == changed.arm_swing > 0
    assert sensor.further(gait, changed, 1.0) == pytest.approx(changed)


def test_the_table_has_smin_beside_the_baselines_over_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([(80.0, 70.0), (90.0, 80.0)])
    monkeypatch.setattr(sensor, "smin", lambda *_: next(scores))
    monkeypatch.setattr(sys, "argv", ["sensor.py", str(tmp_path), "--seeds", "1", "2", "--people", "4"])
    sensor.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0] == "| rank-1, mean ± sd of 2 seeds | normal | altered |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *("bone lengths", "bone lengths, standardised", "bone proportions", "bone proportions, standardised", "SMIN"),
    ]
    assert lines[-1] == "| SMIN | 85.0 ± 7.1 | 75.0 ± 7.1 |"


def test_hits_of_a_final_job_are_told_apart_by_the_kind_of_walk(manifest: Path) -> None:
    table = read_dataset(manifest)
    queries = manifest.parent / "run" / "final" / "queries.csv"
    queries.parent.mkdir(parents=True)
    keys = [str(table.keys_N[table.test[n]]) for n in table.query]
    lines = [f"{key},{1 if key.endswith('-1') else 2}" for key in keys]
    queries.write_text("\n".join(["tracklet,smin_first_hit", *lines]) + "\n")
    assert sensor.smin(manifest, Path("nowhere"), manifest.parent / "run", []) == (100.0, 0.0)
