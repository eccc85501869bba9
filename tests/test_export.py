"""Exported files compute what the networks compute."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import write_trunk
from helpers.small import small_config

from sptskm.cli import main
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.configfile import to_dict
from sptskm.data import Tracklets, read_mars
from sptskm.evaluation import (
    Distances,
    Features,
    FusedDistance,
    Fusion,
    Rows,
    StreamDistances,
    evaluate,
    squared_distances,
)
from sptskm.evaluation.saved import read_fused
from sptskm.export import export, export_distance, export_network
from sptskm.extraction import Network, load_network
from sptskm.training.extract import extract
from sptskm.training.precision import Precision
from sptskm.training.rundir import RunDir
from sptskm.training.streams import stream_of
from sptskm.training.world import join

pytestmark = pytest.mark.slow  # four networks are exported

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
        if body := getattr(model, "body", None):
            body.fit(body.measures(clips(stream, 9, 6)[0]), np.repeat(np.arange(3), 3))
        if branch := getattr(model, "averages", None):
            branch.fit(branch.averages(clips(stream, 9, 6)[0]), np.repeat(np.arange(3), 3))
    return Network(config, model.eval(), 1, "")


def session(onnxruntime, path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(opened, inputs) -> np.ndarray:
    names = [given.name for given in opened.get_inputs()]
    return opened.run(None, {n: np.asarray(x) for n, x in zip(names, inputs, strict=True)})[0]


def clips(stream: str, batch: int, length: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(100 * batch + length)
    if stream == "ssin":
        shape = (batch, length, 3, 64, 32)
        return torch.rand(shape, generator=generator), torch.rand(batch, length, 64, 32, generator=generator)
    if stream == "gait":
        return ((torch.rand(batch, length, 64, 44, generator=generator) > 0.5).float(),)
    valid_BT = torch.rand(batch, length, generator=generator) > 0.3
    return torch.randn(batch, 4, length, 14, generator=generator), valid_BT


STRONG = (
    *("model.bones=true", "model.pooling=mean+std", "model.mirror=true"),
    *("model.static=0.4", "model.measures=body+motion"),
)
KINDS = {
    "ssin-2d": ("ssin", "model.variant=2d"),
    "ssin-3d": ("ssin", "model.variant=3d"),
    "smin": ("smin", *STRONG),  # its graph holds that of the published network
    "gait": ("gait", "model.mirror=true", "model.static=0.4", "model.static_rows=[0,14,40,64]"),
}
SIZES = {
    "ssin": [(2, 3), (1, 1), (3, 5)],
    "smin": [(2, 16), (1, 1), (3, 37), (1, 8)],
    "gait": [(2, 3), (1, 1), (3, 30)],
}


DISTANCE = {"ssin": 2.0, "smin": 0.5, "alone": 3.0, "offset": -0.25}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, and what a final job has kept of two of them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, settings in KINDS.items():
        one = network(*settings)
        (folder / name).mkdir()
        own = RunDir(folder / name)
        own.write(own.best, {"model": one.model.state_dict(), "config": to_dict(one.config), "step": 7})
    fusion = {"weight": 0.3, "normalisation": "concat", "distance": DISTANCE}
    networks = {name.partition("-")[0]: load_network(folder / name).fingerprint for name in ("ssin-2d", "smin")}
    origins = {stream: {"network": network} for stream, network in networks.items()}
    (folder / "results.json").write_text(json.dumps({"fusion": fusion, "provenance": origins}))
    return folder


@pytest.fixture(scope="module")
def files(onnxruntime, runs, tmp_path_factory) -> dict[str, Path]:  # noqa: ARG001
    """What the command writes: both streams with their fused distance, and one stream alone."""
    out = tmp_path_factory.mktemp("exported")
    both = ["export", str(runs / "ssin-2d"), str(runs / "smin"), "--fusion", str(runs)]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert main([*both, "--out", str(out / "m.onnx")]) == 0
        assert main(["export", str(runs / "ssin-3d"), "--out", str(out / "one.onnx")]) == 0
        assert main(["export", str(runs / "gait"), "--out", str(out / "gait.onnx")]) == 0
    written = [out / name for name in ("m-ssin.onnx", "m-smin.onnx", "m-fused.onnx", "one.onnx", "gait.onnx")]
    assert told.getvalue().splitlines() == [str(path) for path in written]
    assert set(out.iterdir()) == set(written)
    return dict(zip(("ssin-2d", "smin", "fused", "ssin-3d", "gait"), written, strict=True))


@pytest.fixture(params=KINDS)
def exported(request, onnxruntime, runs, files):
    """A network and its opened file."""
    return load_network(runs / request.param), session(onnxruntime, files[request.param])


def test_an_exported_stream_embeds_as_the_network_for_any_batch_and_length(exported):
    one, opened = exported
    for batch, length in SIZES[one.config.stream]:
        inputs = clips(one.config.stream, batch, length)
        with torch.inference_mode():
            expected = one.model.embed(*inputs).numpy()
        np.testing.assert_allclose(run(opened, inputs), expected, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["dinov2", "convnext"])
def test_ssin_with_another_trunk_embeds_alike_for_any_batch_and_length(kind, onnxruntime, tmp_path):
    pytest.importorskip("transformers", reason="the extra backbones is not installed")
    write_trunk(tmp_path / "trunk", kind)
    one = network("ssin", f"model.trunk={tmp_path / 'trunk'}")
    export_network(one, tmp_path / "one.onnx")
    opened = session(onnxruntime, tmp_path / "one.onnx")
    for batch, length in SIZES["ssin"]:
        inputs = clips("ssin", batch, length)
        with torch.inference_mode():
            expected = one.model.embed(*inputs).numpy()
        np.testing.assert_allclose(run(opened, inputs), expected, atol=TOLERANCE)


def test_an_exported_smin_leaves_out_frames_without_a_skeleton(exported):
    one, opened = exported
    if one.config.stream != "smin":
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
    assert (about["sptskm.stream"], about["sptskm.step"]) == (one.config.stream, "7")
    assert KINDS[about["sptskm.run"]][0] == one.config.stream, "the folder of the run"


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
    query, gallery = Rows.of(table, table.test[table.query]), Rows.of(table, table.test)
    return evaluate(squared_distances(found.features_ND[table.query], found.features_ND), query, gallery).mAP


def test_files_of_both_streams_and_of_their_distance_work_together(onnxruntime, files):
    ssin, smin, fused = (session(onnxruntime, files[name]) for name in ("ssin-2d", "smin", "fused"))
    features = [
        [run(opened, clips(stream, rows, 9)) for opened, stream in ((ssin, "ssin"), (smin, "smin"))] for rows in (2, 3)
    ]
    distance_QG = run(fused, (*features[0], np.array([True, False]), *features[1], np.array([True, True, False])))
    of_streams = [squared_distances(query, gallery) for query, gallery in zip(*features, strict=True)]
    expected_QG = 3 * of_streams[0] - 0.25
    expected_QG[0, :2] = (2 * of_streams[0] + 0.5 * of_streams[1])[0, :2]
    np.testing.assert_allclose(distance_QG, expected_QG, atol=TOLERANCE)
    about = fused.get_modelmeta().custom_metadata_map
    assert (about["sptskm.weight"], about["sptskm.normalisation"]) == ("0.3", "concat")


def test_two_runs_of_one_stream_are_refused_and_nothing_is_written(onnxruntime, runs, tmp_path, capsys):  # noqa: ARG001
    command = ["export", str(runs / "smin"), str(runs / "smin"), "--out", str(tmp_path / "m.onnx")]
    assert main(command) == 2
    assert "the runs are smin and smin, wanted one of each stream" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_runs_that_were_not_fused_are_refused_and_nothing_is_written(onnxruntime, runs, tmp_path):  # noqa: ARG001
    fused = read_fused(runs).networks["ssin"]
    with pytest.raises(DataError, match=rf"ssin-3d is of network \w+ of ssin, wanted {fused} as fused"):
        export([runs / "ssin-3d", runs / "smin"], tmp_path / "m.onnx", runs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("streams", [("ssin", "smin"), ("ssin", "smin", "gait"), ("ssin", "gait")])
@pytest.mark.parametrize("normalisation", ["zscore", "concat"])
def test_the_exported_distance_is_that_of_the_final_job(onnxruntime, tmp_path, streams, normalisation):
    fused = fusion_of(streams, normalisation)
    export_distance(fused, {stream: LENGTHS[stream] for stream in streams}, tmp_path / "d.onnx")
    opened = session(onnxruntime, tmp_path / "d.onnx")
    for queries, rows, missing in ((1, 7, True), (5, 40, False), (5, 40, True)):
        query, gallery = (sides(streams, count, missing) for count in (queries, rows))
        inputs = []
        for side in (query, gallery):
            flagged = streams[1:] if streams == ("ssin", "smin") else streams  # of these two SSIN has input for all
            inputs += [side[name].features_ND for name in streams] + [side[name].valid_N for name in flagged]
        compared = [{name: own.compared(normalisation) for name, own in side.items()} for side in (query, gallery)]
        distances = {name: squared_distances(*(side[name].features_ND for side in compared)) for name in streams}
        flags = ({name: own.valid_N for name, own in side.items()} for side in (query, gallery))
        expected_QG = fused.distance.of(distances, *flags)
        np.testing.assert_allclose(run(opened, inputs), expected_QG, atol=TOLERANCE)


LENGTHS = {"ssin": 6, "smin": 4, "gait": 5}


def fusion_of(streams: tuple[str, ...], normalisation: str) -> Fusion:
    """A fusion as a final job keeps it, of made-up distances."""
    rng, everybody = np.random.default_rng(1), np.ones(9, bool)
    given = StreamDistances({name: Distances(rng.random((9, 9)), everybody, everybody) for name in streams})
    weights = dict(zip(streams, (0.6, 0.3, 0.1) if len(streams) == 3 else (0.65, 0.35), strict=True))
    distance = FusedDistance.fitted(given, weights, normalisation)
    return Fusion(weights, normalisation, distance, dict.fromkeys(streams, "aaaa"))


def sides(streams: tuple[str, ...], count: int, missing: bool) -> dict[str, Features]:
    """Features by stream; with `missing` some have no input in the streams after the first."""
    found = {}
    for place, name in enumerate(streams):
        features_ND = np.random.default_rng(count).normal(size=(count, LENGTHS[name]))
        valid_N = np.arange(count) % (3 + place) != 2 if missing and place else np.ones(count, bool)
        features_ND[~valid_N] = np.nan
        found[name] = Features(features_ND.astype(np.float32), np.arange(count).astype(str), valid_N, "print", name)
    return found


def test_settings_that_cannot_be_are_refused_before_a_run_is_read(onnxruntime, tmp_path):  # noqa: ARG001
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export([tmp_path], tmp_path / "m.bin")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        export([tmp_path], tmp_path / "none" / "m.onnx")
    with pytest.raises(ConfigError, match=r"/proc/m\.onnx: .*, wanted a file that can be written"):
        export([tmp_path], Path("/proc/m.onnx"))
    with pytest.raises(ConfigError, match="wanted the runs of all streams that it fuses"):
        export([tmp_path], tmp_path / "m.onnx", fusion=tmp_path)
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        export([tmp_path], tmp_path / "m.onnx")
