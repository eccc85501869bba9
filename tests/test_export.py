"""Exported files compute what the networks compute."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_config

from sptskm.config import ConfigError
from sptskm.data import DataError, Tracklets, read_mars
from sptskm.evaluation import evaluate, fuse, squared_distances
from sptskm.export import Fusion, export, export_distance, export_network, read_fusion
from sptskm.extraction import Network
from sptskm.training.extract import extract
from sptskm.training.precision import Precision
from sptskm.training.setup import rows_of
from sptskm.training.streams import stream_of
from sptskm.training.world import join

NEEDED = "wants onnx, onnxscript and onnxruntime: pip install 'sptskm[onnx]'"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def onnxruntime():
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=NEEDED)
    return pytest.importorskip("onnxruntime", reason=NEEDED)


def network(stream: str, *overrides: str) -> Network:
    """Small and untrained, but with statistics of random clips: otherwise it would embed all clips alike."""
    torch.manual_seed(3)
    config = small_config(stream, Path("data"), Path("run"), *overrides)
    model = stream_of(config).model(5)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 0.7)
    with torch.no_grad():
        model(*clips(stream, 8, 6))
    return Network(config, model.eval(), 1)


def session(onnxruntime, path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(opened, inputs) -> np.ndarray:
    names = [given.name for given in opened.get_inputs()]
    return opened.run(None, {n: np.asarray(x) for n, x in zip(names, inputs, strict=True)})[0]


def clips(stream: str, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * batch + length)
    if stream == "ssin":
        shape = (batch, length, 3, 64, 32)
        return torch.rand(shape, generator=generator), torch.rand(batch, length, 64, 32, generator=generator)
    valid_BT = torch.rand(batch, length, generator=generator) > 0.3
    return torch.randn(batch, 4, length, 14, generator=generator), valid_BT


KINDS = {"ssin-2d": ("ssin", "model.variant=2d"), "ssin-3d": ("ssin", "model.variant=3d"), "smin": ("smin",)}
SIZES = {"ssin": [(2, 3), (1, 1), (3, 5)], "smin": [(2, 16), (1, 1), (3, 37), (1, 8)]}


@pytest.fixture(scope="module", params=KINDS)
def exported(request, onnxruntime, tmp_path_factory):
    """A network and its opened file."""
    one = network(*KINDS[request.param])
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export_network(one, path)
    assert [found.name for found in path.parent.iterdir()] == ["m.onnx"]
    return one, session(onnxruntime, path)


def test_an_exported_stream_embeds_as_the_network_for_any_batch_and_length(exported):
    one, opened = exported
    for batch, length in SIZES[one.config.stream]:
        inputs = clips(one.config.stream, batch, length)
        with torch.inference_mode():
            expected = one.model.embed(*inputs).numpy()
        np.testing.assert_allclose(run(opened, inputs), expected, atol=TOLERANCE)


def test_an_exported_smin_leaves_out_frames_without_a_skeleton(exported):
    one, opened = exported
    if one.config.stream == "ssin":
        return
    skeletons, valid_BT = clips("smin", 2, 12)
    for valid in (torch.ones_like(valid_BT), torch.zeros_like(valid_BT)):
        with torch.inference_mode():
            expected = one.model.embed(skeletons, valid).numpy()
        np.testing.assert_allclose(run(opened, (skeletons, valid)), expected, atol=TOLERANCE)
    without = skeletons.where(valid_BT[:, None, :, None], torch.nan)
    np.testing.assert_array_equal(run(opened, (without, valid_BT)), run(opened, (skeletons, valid_BT)))


def test_what_a_file_was_made_from_is_written_in_it(exported):
    one, opened = exported
    about = opened.get_modelmeta().custom_metadata_map
    found = (about["sptskm.stream"], about["sptskm.run"], about["sptskm.step"])
    assert found == (one.config.stream, "run", "1")


def test_features_by_onnxruntime_score_as_those_by_the_network(exported, walkers, monkeypatch):
    one, opened = exported
    table = read_mars(walkers)
    expected = mAP(table, one)
    names = [given.name for given in opened.get_inputs()]

    def embed(*inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) < len(names):  # no frame is missing
            inputs = (*inputs, torch.ones(inputs[0].shape[::2], dtype=torch.bool))
        return torch.from_numpy(run(opened, inputs))

    monkeypatch.setattr(one.model, "embed", embed)
    assert mAP(table, one) == pytest.approx(expected, abs=1e-4)
    assert 0 < expected < 1


def mAP(table: Tracklets, one: Network) -> float:
    """Of the walkers' test part."""
    with join(1, 1) as world:
        stream = stream_of(one.config)
        source = stream.source(table, table.test, Precision.of("fp32", world.device))
        found = extract(one.model, stream, source, table.test, one.config, world)
    query, gallery = rows_of(table, table.test[table.query]), rows_of(table, table.test)
    return evaluate(squared_distances(found.features_ND[table.query], found.features_ND), query, gallery).mAP


def test_both_streams_and_their_fusion_are_written_beside_each_other(onnxruntime, tmp_path, monkeypatch):
    streams = {"a": network("ssin"), "b": network("smin")}
    monkeypatch.setattr("sptskm.export.load_network", lambda run: streams[run.name])
    monkeypatch.setattr("sptskm.export.export_network", lambda one, path: path.write_text(one.config.stream))
    (tmp_path / "results.json").write_text('{"fusion": {"weight": 0.3, "normalisation": "zscore"}}')
    ssin, smin, fused = export(Path("a"), tmp_path / "m.onnx", Path("b"), tmp_path)
    assert [path.name for path in (ssin, smin, fused)] == ["m-ssin.onnx", "m-smin.onnx", "m-fused.onnx"]
    assert (ssin.read_text(), smin.read_text()) == ("ssin", "smin")
    lengths = [given.shape[1:] for given in session(onnxruntime, fused).get_inputs()]
    assert lengths == [[24], [8], [], [24], [8], []]
    assert export(Path("b"), tmp_path / "m.onnx") == [tmp_path / "m.onnx"]
    with pytest.raises(ConfigError, match="the runs are smin and ssin"):
        export(Path("b"), tmp_path / "m.onnx", Path("a"))


@pytest.mark.parametrize("normalisation", ["zscore", "minmax"])
@pytest.mark.parametrize("missing", [False, True])
def test_the_exported_distance_is_that_of_the_final_job(onnxruntime, tmp_path, normalisation, missing):
    export_distance(Fusion(0.35, normalisation), (6, 4), tmp_path / "d.onnx")
    opened = session(onnxruntime, tmp_path / "d.onnx")
    for queries, rows in ((1, 7), (5, 40)):
        rng = np.random.default_rng(queries)
        ssin_QD, ssin_GD = (rng.normal(size=(n, 6)).astype(np.float32) for n in (queries, rows))
        smin_QD, smin_GD = (rng.normal(size=(n, 4)).astype(np.float32) for n in (queries, rows))
        valid_Q, valid_G = np.ones(queries, bool), np.ones(rows, bool)
        if missing:
            valid_Q[1:2] = valid_G[2:4] = False
        distances = squared_distances(ssin_QD, ssin_GD), squared_distances(smin_QD, smin_GD)
        expected_QG = fuse(*distances, valid_Q, valid_G, 0.35, normalisation)
        found_QG = run(opened, (ssin_QD, smin_QD, valid_Q, ssin_GD, smin_GD, valid_G))
        np.testing.assert_allclose(found_QG, expected_QG, atol=1e-9)


def test_the_fusion_of_a_final_job_is_read_and_other_files_are_refused(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(FileNotFoundError, match=r"wanted the results\.json"):
        read_fusion(tmp_path)
    for wrong in ("{", "[]", '{"fusion": null}', '{"fusion": {"weight": "x", "normalisation": "zscore"}}'):
        path.write_text(wrong)
        with pytest.raises(DataError, match="tells no fusion"):
            read_fusion(path)
    path.write_text(json.dumps({"fusion": {"weight": 1.5, "normalisation": "zscore"}}))
    with pytest.raises(DataError, match=r"weight 1\.5"):
        read_fusion(path)
    path.write_text(json.dumps({"fusion": {"weight": 0.25, "normalisation": "minmax"}}))
    assert read_fusion(tmp_path) == Fusion(0.25, "minmax")


def test_settings_that_cannot_be_are_refused_before_a_run_is_read(onnxruntime, tmp_path):  # noqa: ARG001
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export(tmp_path, tmp_path / "m.bin")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        export(tmp_path, tmp_path / "none" / "m.onnx")
    with pytest.raises(ConfigError, match="as --smin"):
        export(tmp_path, tmp_path / "m.onnx", results=tmp_path)
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        export(tmp_path, tmp_path / "m.onnx")
