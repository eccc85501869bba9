"""The stream that docs/streams.md adds, by the code of that page: trained, resumed, extracted and fused."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import ROOT
from helpers.small import COMMON, small_config

import sptskm.streams
from sptskm import config, sections
from sptskm.config import STREAMS, Config, Final
from sptskm.configfile import apply_overrides, load, to_yaml
from sptskm.evaluation.feature_files import read_features
from sptskm.extraction import extract_run
from sptskm.final import final
from sptskm.launching.plan import check, make_plan, parser
from sptskm.training.rundir import RunDir
from sptskm.training.trainer import train
from sptskm.tuning import check_search as check_search
from sptskm.tuning import load_search

PAGE = (ROOT / "docs/streams.md").read_text()


@pytest.fixture(autouse=True)
def bones(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toolkit with the page's sections in the configuration, and with the page's module among the streams."""
    classes, entry, module = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    monkeypatch.setitem(STREAMS, "bones", None)
    added = dict(vars(sections))
    exec(classes, added)
    for name in ("BonesClips", "BonesModel", "BonesLoss"):
        for home in (sections, config):
            monkeypatch.setattr(home, name, added[name], raising=False)
    exec(entry, dict(vars(config)))
    folder = tmp_path_factory.mktemp("streams")
    (folder / "bones.py").write_text(module)
    monkeypatch.setattr(sptskm.streams, "__path__", [*sptskm.streams.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "sptskm.streams.bones", raising=False)


def small(root: Path, run: Path, *overrides: str) -> Config:
    return apply_overrides(STREAMS["bones"].defaults, [f"data.root={root}", f"run={run}", *COMMON, *overrides])


@pytest.fixture
def run(walkers: Path, tmp_path: Path) -> Path:
    assert train(small(walkers, tmp_path / "bones")).finished
    return tmp_path / "bones"


def test_it_is_trained_and_resumed_to_the_same_bits(walkers: Path, tmp_path: Path, run: Path) -> None:
    parts = small(walkers, tmp_path / "parts", "train.epochs=1")
    assert train(parts).finished
    assert train(apply_overrides(parts, ["train.epochs=2"])).finished
    whole, again = (RunDir(folder).newest() for folder in (run, tmp_path / "parts"))
    assert whole is not None
    assert again is not None
    assert whole[1]["step"] > 2
    for name, value in whole[1]["model"].items():
        assert torch.equal(value, again[1]["model"][name]), name


def test_it_is_extracted_without_its_training_data(walkers: Path, run: Path, tmp_path: Path) -> None:
    extract_run(run, walkers, tmp_path / "bones.npz")
    features = read_features(tmp_path / "bones.npz").features
    assert features.stream == "bones"
    assert features.features_ND.shape == (len(features.keys_N), 8)
    np.testing.assert_allclose(np.linalg.norm(features.features_ND[features.valid_N], axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_it_is_fused_with_ssin_in_the_final_job(trained: dict[str, Path], run: Path, tmp_path: Path) -> None:
    results = final([run, trained["ssin"]], tmp_path / "final", Final())
    assert results is not None
    assert [ranking.name for ranking in results.rankings] == ["ssin", "bones", "fused"]
    assert results.fusion is not None
    assert list(results.fusion.weights) == ["ssin", "bones"]
    assert "weight of bones" in results.text()
    report = (tmp_path / "final" / "report.html").read_text()
    assert "The stream that compares the lengths of bones." in report
    assert (tmp_path / "final" / "features-bones.npz").is_file()


def test_launchers_and_searches_know_it_by_its_name(walkers: Path, tmp_path: Path) -> None:
    for stream in ("ssin", "smin"):
        (tmp_path / f"{stream}.yaml").write_text(to_yaml(small_config(stream, walkers, Path())))
    (tmp_path / "bones.yaml").write_text(to_yaml(small(walkers, Path())))
    words = ["--stream", "all", "--config", str(tmp_path), "bones.train.epochs=3"]
    plan = make_plan(parser("").parse_intermixed_args(words))
    check(plan, dict.fromkeys(STREAMS, 1))
    assert [config.stream for config in plan.configs] == ["ssin", "smin", "bones"]
    assert plan.config("bones").train.epochs == 3
    (tmp_path / "search.yaml").write_text("bones:\n  model.width: {choice: [4, 8]}\n")
    check_search(
        tmp_path / "search.yaml", load_search(tmp_path / "search.yaml")["bones"], load(tmp_path / "bones.yaml")
    )
