"""The functions of `from sptskm import ...` do what the commands do, and the examples run."""

import importlib.util
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.launching import ROOT
from helpers.small import small_config

import sptskm
from sptskm import evaluate, extract, load_config, load_model, search


def example(name: str) -> ModuleType:
    """The example as a module, as it would be imported by its user."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_configuration_is_found_by_its_name_and_takes_overrides():
    config = load_config("demo/ssin", "train.epochs=3")
    assert (config.stream, config.train.epochs) == ("ssin", 3)
    assert load_config(ROOT / "configs/demo/smin.yaml").stream == "smin"


def test_a_mistake_in_an_override_is_one_error_that_names_the_key():
    with pytest.raises(sptskm.api.ConfigError, match=r"train.epoch\b.*did you mean epochs"):
        load_config("demo/ssin", "train.epoch=3")


def test_a_trained_run_is_loaded_as_a_module_in_evaluation_mode(trained):
    network = load_model(trained["smin"])
    assert isinstance(network.model, torch.nn.Module)
    assert not network.model.training
    assert network.config.stream == "smin"


def test_embeddings_of_tracklets_are_returned_written_and_searched(trained, walkers, tmp_path):
    features = extract(trained["smin"], walkers, tmp_path / "walkers.npz")
    key = str(features.keys_N[features.valid_N][0])
    found = search(tmp_path / "walkers.npz", key, top=3)
    distances_N = ((features.features_ND - features.features_ND[features.keys_N == key]) ** 2).sum(1)
    distances_N[~features.valid_N | (features.keys_N == key)] = np.inf
    assert found[0].tracklet == features.keys_N[distances_N.argmin()]
    assert [one.distance for one in found] == pytest.approx(sorted(distances_N.tolist())[:3], abs=1e-5)


def test_runs_are_evaluated_and_the_numbers_returned(trained, tmp_path):
    results = evaluate([trained["ssin"]], tmp_path / "final", {"protocol": "torchreid"})
    assert results.lines()[0]["stream"] == "ssin"
    assert results.lines()[0]["protocol"] == "torchreid"
    assert (tmp_path / "final/report.html").is_file()


def test_importing_the_package_does_not_import_torch():
    code = "import sptskm, sys; assert 'torch' not in sys.modules; sptskm.train; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_of_the_package_hides_a_function_of_the_api():
    modules = {module.name for module in pkgutil.iter_modules(sptskm.__path__)}
    assert not modules & set(sptskm.__all__)


@pytest.mark.slow
def test_the_examples_train_evaluate_and_embed(walkers, tmp_path, capsys):
    small = small_config("ssin", walkers, tmp_path / "unused")
    changes = [f"model.width={small.model.width}", "train.epochs=1", "model.depths=[1,1,1,1]", "clips.height=32"]
    example("train_and_evaluate").main(walkers, tmp_path, "clips.width=16", "sampling.identities=2", *changes)
    assert "mars-official" in capsys.readouterr().out
    example("embed_tracklets").main(tmp_path / "ssin", walkers, tmp_path / "walkers.npz")
    assert "tracklets, " in capsys.readouterr().out
    assert (tmp_path / "walkers.npz").is_file()


@pytest.mark.slow
def test_the_sweep_of_the_examples_runs_in_ray_tune(walkers, tmp_path: Path):
    ray = pytest.importorskip("ray")
    small = ["train.epochs=2", "sampling.identities=2", "sampling.tracklets=2", "model.width=8", "clips.frames=8"]
    with TemporaryDirectory(prefix="ray-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=folder)
        try:
            found = example("tune_sweep").main(walkers, tmp_path, *small, trials=2)
        finally:
            ray.shutdown()
    assert len(found) == 2
    assert not found.errors
    assert 0 <= found.get_best_result().metrics["mAP"] <= 1
