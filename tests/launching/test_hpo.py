"""What a search file means to Ray Tune, and Tune's own function trainables; no ranks are started here."""

import json
import logging
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sptskm.config import ConfigError
from sptskm.data import read_dataset
from sptskm.launching import searches
from sptskm.launching.plan import make_plan, parser
from sptskm.launching.ray_environment import set_niceness
from sptskm.tuning import Distribution, Search, configured

pytest.importorskip("ray")

SPACE = {
    "optim.lr": Distribution("loguniform", (1e-3, 1e-1)),
    "loss.margin": Distribution("quantised", (0.1, 0.5, 0.2)),
    "sampling.tracklets": Distribution("integer", (2, 4)),
    "model.depths": Distribution("choice", ([1, 1], [2, 2])),
}
CHOICES = {"optim.lr": Distribution("choice", (0.01, 0.1)), "model.depths": Distribution("choice", ([1, 1], [2, 2]))}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    import ray

    set_niceness()  # Ray's own would starve these workers beside other tests
    with tempfile.TemporaryDirectory(prefix="hpo-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": folder}
        ray.init(
            address="local",
            num_cpus=1,
            object_store_memory=100_000_000,
            logging_level=logging.CRITICAL,
            **options,
        )
        yield
        ray.shutdown()


def tried(search: Search, first: dict[str, Any], storage: Path) -> list[dict[str, Any]]:
    """Settings of all trials of a search whose score is its learning rate."""
    from ray import tune

    from sptskm.launching import hpo
    from sptskm.tuning import grid_points, settings_of

    def objective(settings: dict[str, Any]) -> None:
        tune.report({hpo.METRIC: settings["optim.lr"], hpo.EPOCH: 1})

    found = tune.Tuner(
        objective,
        param_space={name: hpo.domain(draw) for name, draw in search.space.items()},
        tune_config=tune.TuneConfig(
            metric=hpo.METRIC,
            mode="max",
            search_alg=hpo.searcher(search, first),
            num_samples=len(list(grid_points(search.space))) if search.method == "grid" else search.trials,
            scheduler=hpo.scheduler(search),
            max_concurrent_trials=None,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(storage), verbose=0),
    ).fit()
    return [settings_of(result.config, search.space) for result in found]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("method", ["random", "optuna"])
def test_trials_lie_in_their_ranges_begin_with_the_configuration_and_depend_on_the_seed(
    method: Any, tmp_path: Path
) -> None:
    first = {"optim.lr": 0.02, "loss.margin": 0.3, "sampling.tracklets": 2, "model.depths": [2, 2]}
    search = Search(trials=4, method=method, scheduler="none", stream="smin", space=SPACE)
    found = tried(search, first, tmp_path)
    assert found[0] == first
    assert len(found) == 4
    for settings in found:
        assert all(SPACE[name].holds(value) for name, value in settings.items() if name != "loss.margin")
        assert settings["loss.margin"] in (0.1, 0.3, 0.5)
    assert tried(search, first, tmp_path) == found
    assert tried(Search(**{**vars(search), "seed": 1}), first, tmp_path)[1:] != found[1:]


def test_optuna_begins_as_near_to_the_configuration_as_it_can() -> None:
    pytest.importorskip("optuna")
    from sptskm.launching import hpo

    space = {**SPACE, "loss.triplet": Distribution("uniform", (0.2, 1.0), {"optim.lr": (0.5,)})}
    first = {"optim.lr": 3.0, "loss.margin": 0.3, "sampling.tracklets": 3, "model.depths": [3]}
    found = hpo.searcher(Search(method="optuna", stream="smin", space=space), first)
    wanted = {"optim.lr": 0.1, "loss.margin": 0.3, "sampling.tracklets": 3, "model.depths": "[1, 1]"}
    assert found._points_to_evaluate == [{**wanted, "loss.triplet": 0.2}]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_grid_is_tried_as_a_whole_with_each_combination_once(tmp_path: Path) -> None:
    search = Search(method="grid", scheduler="none", stream="smin", space=CHOICES)
    found = tried(search, {}, tmp_path)
    assert sorted(found, key=repr) == sorted(
        ({"optim.lr": rate, "model.depths": depths} for rate in (0.01, 0.1) for depths in ([1, 1], [2, 2])), key=repr
    )


@pytest.mark.parametrize(
    ("rules", "name", "wanted"),
    [
        ({}, "AsyncHyperBandScheduler", {"_max_t": 36, "_reduction_factor": 3, "_stop_last_trials": False}),
        ({"scheduler": "hyperband"}, "AsyncHyperBandScheduler", {"_max_t": 36}),
        ({"scheduler": "median"}, "MedianStoppingRule", {"_grace_period": 4}),
        ({"scheduler": "pbt"}, "PopulationBasedTraining", {"_perturbation_interval": 4, "_synch": False}),
        ({"scheduler": "none"}, "FIFOScheduler", {}),
    ],
)
def test_a_rule_of_a_search_file_is_a_scheduler_of_tune(
    rules: dict[str, Any], name: str, wanted: dict[str, Any]
) -> None:
    from sptskm.launching import hpo

    found = hpo.scheduler(Search(epochs=36, grace_epochs=4, stream="smin", space=SPACE, **rules))
    assert type(found).__name__ == name
    assert {key: getattr(found, key) for key in wanted} == wanted
    if name == "AsyncHyperBandScheduler":
        rungs = [[rung for rung, _ in bracket._rungs] for bracket in found._brackets]
        assert rungs == [[36, 12, 4], [36, 12], [36]][: 3 if rules else 1]


def test_a_file_of_tune_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    from sptskm.launching.storage import whole_files

    path = tmp_path / "new" / "state.json"
    with whole_files().open_output_stream(str(path)) as file:
        file.write(b"one")
    assert path.read_bytes() == b"one"
    with whole_files().open_output_stream(str(path)) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one", "as a kill here would leave it"
    assert path.read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


def test_what_pbt_has_multiplied_stays_in_its_range() -> None:
    from sptskm.launching import hpo

    settings = {"optim.lr": 0.12, "loss.margin": 0.3, "sampling.tracklets": 5, "model.depths": "[1, 1]"}
    assert hpo.within(SPACE, settings) == {**settings, "optim.lr": 0.1, "sampling.tracklets": 4}


def test_a_search_is_continued_by_the_same_rules_only(configs: Path, tmp_path: Path) -> None:
    def load(*lines: str) -> searches.Searches:
        (tmp_path / "search.yaml").write_text("\n".join((*lines, "smin: {optim.lr: {uniform: [1, 2]}}")))
        return searches.load_searches(plan, tmp_path / "search.yaml")

    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / "run")]
    plan = make_plan(parser("").parse_intermixed_args(words))
    searches.note(plan, load("trials: 3")["smin"])
    assert load("trials: 3")["smin"].trials == 3
    with pytest.raises(ConfigError, match=r"search.trials: 3 -> 4\), wanted another --run"):
        load("trials: 4")
    (tmp_path / "run" / "search" / "smin" / searches.ASKED).write_text("[7")
    with pytest.raises(ConfigError, match=r"asked\.json is no record of a search"):
        load("trials: 3")


def test_a_search_is_continued_on_the_same_data_only(configs: Path, tmp_path: Path) -> None:
    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / "run")]
    plan = make_plan(parser("").parse_intermixed_args(words))
    (tmp_path / "search.yaml").write_text("smin: {optim.lr: {uniform: [1, 2]}}")
    search = searches.load_searches(plan, tmp_path / "search.yaml")["smin"]
    searches.note(plan, search)
    now = read_dataset(plan.configs[0].data.root).training_fingerprint
    for number, text in enumerate(["{", "{}", json.dumps({"fingerprint": now})]):  # only the last one says anything
        run = Path(searches.trial(plan, search, number, {})[0].folder)
        run.mkdir(parents=True)
        (run / "data.json").write_text(text)
        searches.load_searches(plan, tmp_path / "search.yaml")
    (run / "data.json").write_text('{"fingerprint": "00"}')
    with pytest.raises(ConfigError, match=f"search on other data .fingerprint of the training data: 00 -> {now}"):
        searches.load_searches(plan, tmp_path / "search.yaml")


def test_a_search_of_an_earlier_version_is_refused(configs: Path, tmp_path: Path) -> None:
    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / "run")]
    plan = make_plan(parser("").parse_intermixed_args(words))
    (tmp_path / "search.yaml").write_text("smin: {optim.lr: {uniform: [1, 2]}}")
    old = tmp_path / "run" / "search" / "smin" / "0000" / "trial.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    with pytest.raises(ConfigError, match="holds a search of an earlier version, wanted another --run"):
        searches.load_searches(plan, tmp_path / "search.yaml")


@pytest.mark.parametrize("content", [b"", b"{", b"[7]", b"\xff\xfe{}", b"{}"])
def test_a_broken_snapshot_of_tune_is_one_sentence(content: bytes, configs: Path, tmp_path: Path) -> None:
    from sptskm.launching import hpo
    from sptskm.launching.workers import Team

    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / "run")]
    home = tmp_path / "run" / "search" / "smin"
    home.mkdir(parents=True)
    (home / "experiment_state-1.json").write_bytes(content)
    (home / "tuner.pkl").write_bytes(b"no pickle")
    with pytest.raises(ConfigError, match=r"the search cannot be continued .*, wanted another --run") as refused:
        hpo._tuner(make_plan(parser("").parse_args(words)), Search(stream="smin", space=SPACE), Team(1, 1, 0), "")
    assert "\n" not in str(refused.value)


def test_a_trial_is_at_fault_when_its_ranks_failed_and_not_when_a_node_was_lost(tmp_path: Path) -> None:
    from ray.exceptions import RayTaskError

    from sptskm.launching.hpo import at_fault
    from sptskm.launching.workers import Failed

    try:
        raise Failed("the loss is not finite")
    except Failed as error:
        own = str(RayTaskError("train", traceback.format_exc(), error).as_instanceof_cause())
    lost = "The actor is unavailable: RpcError: failed to connect; last error: Failed to connect to remote host"
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"))
    for text, expected in ((own, True), (lost, False)):
        (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{text}\n")
        assert at_fault(trial) is expected
        (tmp_path / "error.txt").write_text(f"Failure # 1 (at noon)\n{own}\nFailure # 2 (at one)\n{text}\n")
        assert at_fault(trial) is expected


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_training_is_a_function_trainable_of_tune_as_its_users_write_them(walkers: Path, tmp_path: Path) -> None:
    from helpers.small import small_config
    from ray import tune

    config = small_config("smin", walkers, tmp_path / "unused", "train.epochs=2", "train.validate_every=1")

    def trainable(settings: dict[str, float]) -> None:
        from sptskm.training.trainer import train

        run = {"run": f"{tmp_path}/{settings['loss.margin']}"}
        train(configured(config, {**settings, **run}), report=tune.report)

    tuner = tune.Tuner(
        trainable,
        param_space={"loss.margin": tune.grid_search([0.1, 0.3])},
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    )
    found = tuner.fit()
    assert not found.errors, found.errors
    assert [result.metrics["epoch"] for result in found] == [2, 2]
    assert found.get_best_result("validation/mAP", "max").config["loss.margin"] in (0.1, 0.3)
