"""What compares or fuses masks and skeletons of different methods says so; what does not know them says nothing."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small import small_config

from sptskm.config import Final, SminClips, SsinClips
from sptskm.data import read_dataset
from sptskm.data.clips import FrameSource
from sptskm.data.derived import SIZES, describe_method, write_method
from sptskm.data.skeleton_clips import SkeletonSource
from sptskm.data.skeleton_store import load_skeletons
from sptskm.evaluation import Features, FusedDistance, Fusion, Rows
from sptskm.evaluation.feature_files import Labelled, read_features, write_features
from sptskm.evaluation.results import RESULTS
from sptskm.evaluation.saved import read_fused
from sptskm.extraction import extract_run
from sptskm.final import final
from sptskm.nearest import FeatureSet, search
from sptskm.training.rundir import RunDir
from sptskm.training.setup import methods_of
from sptskm.training.trainer import train

GRABCUT, BLAZEPOSE = {"method": "grabcut"}, {"method": "blazepose", "weights": "e9a5", "precision": "float32"}
WORTH_LESS = "results are worth less"


def labelled(stream: str = "ssin", **methods: dict[str, str]) -> Labelled:
    keys = np.array([f"t{row}" for row in range(6)])
    values = np.random.default_rng(len(stream)).normal(size=(6, 4)).astype(np.float32)
    labels = Rows(np.arange(6), np.ones(6, np.int64))
    return Labelled(Features(values, keys, np.ones(6, bool), "print", stream), labels, "aaaa", methods)  # type: ignore[arg-type]


def test_files_of_features_keep_the_methods_and_those_of_before_have_none(tmp_path: Path) -> None:
    for number, methods in enumerate(({}, {"masks": GRABCUT}, {"masks": BLAZEPOSE, "skeletons": BLAZEPOSE})):
        one, path = labelled(**methods), tmp_path / f"{number}.npz"
        write_features(path, one.features, one.labels, one.network, one.methods)
        assert read_features(path).methods == methods
    assert "methods" not in np.load(tmp_path / "0.npz").files


@pytest.mark.parametrize(
    ("gallery", "query", "warned"),
    [
        ({"masks": GRABCUT}, {"masks": BLAZEPOSE}, True),
        ({"masks": BLAZEPOSE}, {"masks": {**BLAZEPOSE, "precision": "float16"}}, True),
        ({"masks": GRABCUT}, {"masks": GRABCUT}, False),
        ({"masks": GRABCUT}, {}, False),
        ({}, {}, False),
        ({"skeletons": {**BLAZEPOSE, SIZES: "in metres"}}, {"skeletons": {**BLAZEPOSE, SIZES: "brought to one"}}, True),
        ({"skeletons": {SIZES: "in metres"}}, {"skeletons": {SIZES: "brought to one"}}, True),
        ({"skeletons": {**BLAZEPOSE, SIZES: "in metres"}}, {"skeletons": BLAZEPOSE}, False),
        ({"skeletons": {**BLAZEPOSE, SIZES: "in metres"}}, {"skeletons": {SIZES: "in metres"}}, False),
    ],
)
def test_a_search_across_methods_is_said_to_be_one(
    gallery: dict[str, dict[str, str]], query: dict[str, dict[str, str]], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    search(FeatureSet([labelled(**gallery)]), FeatureSet([labelled(**query)]), 2)
    assert (WORTH_LESS in caplog.text) == warned
    assert caplog.text.count("\n") == warned, "one line"


def test_a_fusion_that_was_chosen_on_other_methods_is_said_to_be_one(caplog: pytest.LogCaptureFixture) -> None:
    pair = FeatureSet([labelled(masks=GRABCUT), labelled("smin", skeletons=BLAZEPOSE)])
    weights, networks = {"ssin": 0.6, "smin": 0.4}, {"ssin": "aaaa", "smin": "aaaa"}
    fused = Fusion(weights, "zscore", FusedDistance.of_before(1.5, 0.8, 1.7, -0.3), networks)
    pair.check(fused)
    pair.check(replace(fused, methods={"masks": GRABCUT, "skeletons": BLAZEPOSE}))
    assert not caplog.text
    pair.check(replace(fused, methods={"masks": BLAZEPOSE, "skeletons": BLAZEPOSE}))
    assert "the fusion and the features have masks by blazepose (weights e9a5, precision float32) and by grabcut" in (
        caplog.text
    )


def test_results_tell_the_methods_behind_a_fusion(tmp_path: Path) -> None:
    constants = {"ssin": 1.5, "smin": 0.8, "alone": 1.7, "offset": -0.3}
    fusion = {"weight": 0.5, "normalisation": "zscore", "distance": constants}
    origins = {"ssin": {"network": "a", "methods": {"masks": GRABCUT}}, "smin": {"network": "b"}}
    (tmp_path / RESULTS).write_text(json.dumps({"fusion": fusion, "provenance": origins}))
    assert read_fused(tmp_path).methods == {"masks": GRABCUT}


def test_a_stream_has_the_methods_of_what_it_is_given(walkers: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(walkers / "info", tmp_path / "data" / "info")).parent
    write_method(data, "masks", GRABCUT)
    write_method(data, "skeletons", BLAZEPOSE)
    table = read_dataset(data)
    frames = FrameSource(table, SsinClips())
    assert methods_of("ssin", table, frames) == {"masks": GRABCUT}
    assert methods_of("smin", table, frames) == {"skeletons": BLAZEPOSE}


def test_skeletons_are_known_by_whether_their_sizes_were_kept(walkers: Path) -> None:
    table = read_dataset(walkers)
    found = {}
    for scale in ("tracklet", "auto"):
        store = load_skeletons(table, table.train[:3], scale=scale)
        found[scale] = methods_of("smin", table, SkeletonSource(store, replace(SminClips(), scale=scale)))
    assert found == {"tracklet": {}, "auto": {"skeletons": {SIZES: "in metres"}}}
    assert describe_method(found["auto"]["skeletons"]) == "an unknown method (sizes in metres)"


@pytest.mark.parametrize("known", [True, False])
def test_embedding_data_of_another_method_than_was_trained_on_is_said(
    trained: dict[str, Path], walkers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, known: bool
) -> None:
    run, data = tmp_path / "run", Path(shutil.copytree(walkers, tmp_path / "data"))
    run.mkdir()
    state = RunDir(trained["smin"]).trained()
    assert state["methods"] == {}, "of walkers nobody knows"
    if known:
        state["methods"] = {"skeletons": GRABCUT}
    torch.save(state, run / "best.pt")
    write_method(data, "skeletons", BLAZEPOSE)
    with caplog.at_level(logging.WARNING):
        extract_run(run, data, tmp_path / "features.npz", ["data.workers=0"])
    assert (WORTH_LESS in caplog.text) == known
    assert read_features(tmp_path / "features.npz").methods == {"skeletons": BLAZEPOSE}


@pytest.mark.usefixtures("without_drawing")
def test_the_final_job_and_a_run_that_continues_say_when_their_data_are_of_another_method(
    trained: dict[str, Path], walkers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(walkers, tmp_path / "data"))
    run = Path(shutil.copytree(trained["smin"], tmp_path / "smin"))
    write_method(data, "skeletons", BLAZEPOSE)
    results = final([run], tmp_path / "out", Final(), [f"data.root={data}"])
    assert results is not None
    assert results.provenance["smin"]["methods"] == {"skeletons": BLAZEPOSE}
    assert read_features(tmp_path / "out" / "features-smin.npz").methods == {"skeletons": BLAZEPOSE}
    assert WORTH_LESS not in caplog.text, "by which method the run was trained is not known"
    for path in run.glob("*.pt"):
        torch.save({**torch.load(path, weights_only=True), "methods": {"skeletons": GRABCUT}}, path)
    final([run], tmp_path / "out", Final(), [f"data.root={data}"])
    assert caplog.text.count(WORTH_LESS) == 1
    assert train(small_config("smin", data, run)).finished
    assert caplog.text.count(WORTH_LESS) == 2
