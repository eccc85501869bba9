"""A run tells its epochs in lines, in metrics.csv, in TensorBoard, and to services if asked."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.small import small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.configfile import apply_overrides, differing, flat, load, to_dict, to_yaml
from sptskm.report import trackers
from sptskm.report.trackers import Mlflow, Wandb, check_trackers
from sptskm.training.logbook import COLUMNS, Logbook, MetricsFile, duration, training_cost
from sptskm.training.meters import Meters
from sptskm.training.profiling import TRACE
from sptskm.training.trainer import train


def lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_metrics_have_a_line_for_each_epoch_and_scores_where_there_was_a_validation(walkers, tmp_path, caplog):
    caplog.set_level("INFO", logger="sptskm")
    train(small_config("smin", walkers, tmp_path / "run", "train.epochs=2", "train.validate_every=2"))
    first, second = lines(tmp_path / "run/metrics.csv")
    assert [first["epoch"], second["epoch"]] == ["1", "2"]
    assert float(first["total"]) > 0
    assert float(second["learning rate"]) > 0
    assert not first["validation/mAP"]
    assert 0 <= float(second["validation/mAP"]) <= 1
    (told,) = [line for line in caplog.messages if "epoch 2/2" in line]
    assert all(word in told for word in ("clips/s", "lr ", "GiB", "held-out mAP", "0:00:00 left"))


def test_a_continued_run_writes_each_epoch_once(walkers, tmp_path):
    for epochs in (1, 3):
        train(small_config("smin", walkers, tmp_path / "run", f"train.epochs={epochs}"))
    assert [line["epoch"] for line in lines(tmp_path / "run/metrics.csv")] == ["1", "2", "3"]


def test_epochs_that_are_trained_again_are_replaced_in_the_table(tmp_path):
    table = MetricsFile(tmp_path / "metrics.csv", keep=0)
    for epoch in (1, 2, 3):
        table.add({"epoch": epoch, "total": 0.5})
    MetricsFile(tmp_path / "metrics.csv", keep=1).add({"epoch": 2, "total": 0.25, "validation/mAP": 0.5})
    assert lines(tmp_path / "metrics.csv") == [
        {"epoch": "1", "total": "0.5", "validation/mAP": ""},
        {"epoch": "2", "total": "0.25", "validation/mAP": "0.5"},
    ]


def test_epochs_that_a_cut_off_table_lacks_take_no_place_of_others(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,total\n2,0.5\n3,0.4\n4,0.3\n5,")
    MetricsFile(tmp_path / "metrics.csv", keep=3).add({"epoch": 4, "total": 0.2})
    assert [line["epoch"] for line in lines(tmp_path / "metrics.csv")] == ["2", "3", "4"]


def test_a_table_that_is_none_is_set_aside_and_the_run_goes_on(walkers, tmp_path, caplog):
    config = small_config("smin", walkers, tmp_path / "run", "train.epochs=1")
    assert train(config).finished
    (tmp_path / "run/metrics.csv").write_bytes(b"epoch,\xff\n1,2\n")
    assert train(apply_overrides(config, ["train.epochs=2"])).finished
    assert "is kept as metrics.csv.broken, and a new one is begun" in caplog.text
    assert (tmp_path / "run/metrics.csv.broken").read_bytes() == b"epoch,\xff\n1,2\n"
    assert [line["epoch"] for line in lines(tmp_path / "run/metrics.csv")] == ["2"]


def test_the_cost_of_a_training_is_the_sum_of_its_epochs_and_unknown_for_runs_that_kept_none(trained, tmp_path):
    seconds, ranks = training_cost(trained["smin"])
    assert seconds > 0
    assert ranks == 1
    assert training_cost(tmp_path) is None
    MetricsFile(tmp_path / "metrics.csv", keep=0).add({"epoch": 1, "total": 0.5})
    assert training_cost(tmp_path) is None


def test_the_means_of_a_part_of_an_epoch_say_so():
    meters = Meters(steps=5, rate=0.1)
    for _ in range(3):
        meters.add({"total": 1.0}, clips=4)
    assert "of the last 3 of 5 steps" in meters.summary()
    for _ in range(2):
        meters.add({"total": 1.0}, clips=4)
    assert "steps" not in meters.summary()


def test_every_run_has_its_configuration_as_text_and_its_row_in_hparams_whose_columns_are_what_matters(trained):
    events = EventAccumulator(str(trained["ssin"])).Reload()
    (text,) = events.Tensors("settings/text_summary")
    config = load(trained["ssin"] / "config.yaml")
    assert to_yaml(config) in text.tensor_proto.string_val[0].decode()
    row = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    assert set(flat(to_dict(config))) == set(row.session_start_info.hparams)
    columns = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    ).experiment
    assert {one.name for one in columns.hparam_infos} == {*COLUMNS, *differing(to_dict(config))}
    assert {one.name for one in columns.hparam_infos if one.differs} == set(COLUMNS)
    assert [one.name.tag for one in columns.metric_infos] == ["validation/best mAP"]


def test_a_run_beside_a_search_leaves_the_columns_of_hparams_to_the_search_so_that_what_it_varies_is_there(tmp_path):
    for name in ("smin", "retrained/smin"):
        folder = tmp_path / "with" / name
        (tmp_path / "with/search").mkdir(parents=True, exist_ok=True)
        Logbook(small_config("smin", tmp_path, folder), folder, 0, 0, ranks=1, writes=True).close(finished=False)
        tags = EventAccumulator(str(folder)).Reload().summary_metadata
        assert "_hparams_/session_start_info" in tags
        assert "_hparams_/experiment" not in tags


def test_every_chart_of_custom_scalars_is_of_a_tag_that_a_run_writes(trained):
    events = EventAccumulator(str(trained["ssin"])).Reload()
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    wanted = [tag for group in layout.category for chart in group.chart for tag in chart.multiline.tag]
    assert len(wanted) > 5
    written = events.Tags()["scalars"]
    assert [tag for tag in wanted if not any(re.fullmatch(tag, one) for one in written)] == []


def test_a_trace_of_some_steps_is_written_on_request(walkers, tmp_path):
    train(small_config("smin", walkers, tmp_path / "run", "train.profile=2", "train.epochs=8"))
    assert json.loads((tmp_path / "run" / TRACE).read_text())["traceEvents"]


def test_time_is_written_as_hours_minutes_and_seconds():
    assert [duration(seconds) for seconds in (0, 59.6, 3723)] == ["0:00:00", "0:01:00", "1:02:03"]


def test_a_service_whose_library_is_missing_is_refused_before_training(monkeypatch):
    monkeypatch.setattr("sptskm.report.trackers.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"train.wandb is set, but wandb is not installed"):
        check_trackers("project", "")


@pytest.mark.parametrize("kind", [Wandb, Mlflow])
def test_a_mark_without_the_id_of_the_run_to_continue_is_one_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "import_module", lambda _: SimpleNamespace(set_experiment=str))
    (tmp_path / f"{kind.__name__.lower()}.json").write_text("{}")
    with pytest.raises(DataError, match=r"\.json: has no id, wanted that of the run that goes on; without the file"):
        kind("walks", tmp_path, {})


@pytest.mark.slow
def test_mlflow_follows_a_run_and_its_continuation_as_one(walkers, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    for epochs in (1, 2):
        train(small_config("smin", walkers, tmp_path / "run", "train.mlflow=walks", f"train.epochs={epochs}"))
    (run,) = mlflow.search_runs(experiment_names=["walks"], output_format="list")
    assert run.data.metrics["progress/epoch"] == 2
    assert run.data.params["stream"] == "smin"
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_wandb_follows_a_run_without_a_network(walkers, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(small_config("smin", walkers, tmp_path / "run", "train.wandb=walks", "train.epochs=1"))
    known = json.loads((tmp_path / "run/wandb.json").read_text())["id"]
    assert list((tmp_path / "run/wandb").glob(f"offline-run-*-{known}/run-{known}.wandb"))
