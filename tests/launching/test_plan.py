"""The command line of both launchers: what it asks for, and what is refused before anything is started."""

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import ROOT

from sptskm.config import STREAMS, Config, ConfigError
from sptskm.configfile import to_yaml
from sptskm.evaluation import PROTOCOLS
from sptskm.launching import local, slurm
from sptskm.launching.jobs import FinalJob, TrainJob, final_job
from sptskm.launching.plan import Plan, check, make_plan, parser
from sptskm.launching.searches import without_test_split


def plan(configs: Path, *words: str, ranks: int = 1, stream: str = "both") -> Plan:
    """The checked plan of a command line."""
    found = make_plan(parser("").parse_intermixed_args(["--stream", stream, "--config", str(configs), *words]))
    check(found, dict.fromkeys(STREAMS, ranks))
    return found


def by_stream(plan: Plan) -> dict[str, Config]:
    return {config.stream: config for config in plan.configs}


def test_an_override_without_prefix_reaches_both_streams_and_not_the_final_job(configs):
    found = plan(configs, "train.epochs=7")
    assert [config.train.epochs for config in found.configs] == [7, 7]
    assert found.final == plan(configs).final


def test_a_prefixed_override_reaches_its_stream_or_the_final_job_alone(configs):
    found = plan(configs, "ssin.train.epochs=7", "smin.optim.lr=0.5", "final.protocol=torchreid", "final.weight=0.25")
    streams, before = by_stream(found), by_stream(plan(configs))
    assert (streams["ssin"].train.epochs, streams["smin"].train.epochs) == (7, before["smin"].train.epochs)
    assert (streams["smin"].optim.lr, streams["ssin"].optim.lr) == (0.5, before["ssin"].optim.lr)
    assert (found.final.protocol, found.final.weight) == ("torchreid", 0.25)


def test_overrides_may_stand_on_both_sides_of_options(configs, tmp_path):
    found = plan(configs, "train.epochs=7", "--run", str(tmp_path / "r"), "train.seed=3")
    assert {(config.train.epochs, config.train.seed) for config in found.configs} == {(7, 3)}


def test_an_override_of_a_stream_that_is_not_asked_for_is_refused(configs):
    with pytest.raises(ConfigError, match=r"override 'smin.train.epochs=7': smin is not trained, --stream is ssin"):
        plan(configs, "smin.train.epochs=7", stream="ssin")


def test_all_are_the_streams_that_the_folder_has_a_file_of(configs):
    assert list(by_stream(plan(configs, stream="all"))) == ["ssin", "smin"]
    (configs / "ssin.yaml").unlink()
    assert list(by_stream(plan(configs, stream="all"))) == ["smin"]


@pytest.mark.parametrize("asked", ["ssin", "both"])
def test_a_stream_without_a_file_is_refused_by_name(configs, asked):
    (configs / "ssin.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=rf"ssin\.yaml: no such file, and --stream is {asked}; .* has smin$"):
        plan(configs, stream=asked)
    (configs / "smin.yaml").unlink()
    with pytest.raises(ConfigError, match=r"has no file of a stream, wanted ssin\.yaml or smin\.yaml"):
        plan(configs, stream="all")


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_one_stream_is_one_run(configs, stream):
    assert [config.stream for config in plan(configs, stream=stream).configs] == [stream]


def test_runs_lie_under_runs_and_the_name_of_the_configuration_folder(configs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = plan(configs)
    assert found.folder == tmp_path / "runs" / "configs"
    assert [config.run for config in found.configs] == [str(found.folder / name) for name in ("ssin", "smin")]
    assert found.out == found.folder / "final"
    assert found.tensorboard_command().endswith(f"tensorboard --logdir {found.folder}")
    monkeypatch.chdir(configs)
    assert make_plan(parser("").parse_args(["--stream", "ssin", "--config", "."])).folder.name == "configs"


def test_a_run_folder_may_have_any_name(configs, tmp_path):
    folder = tmp_path / "a: b #1"
    assert [config.run for config in plan(configs, "--run", str(folder)).configs] == [
        str(folder / "ssin"),
        str(folder / "smin"),
    ]


def test_the_default_configuration_is_the_published_recipe():
    chosen = parser("").parse_args(["--stream", "both"])
    assert (chosen.config, chosen.run, chosen.overrides) == (Path("configs/mars"), None, [])


def test_folds_are_runs_of_every_stream_that_leave_a_part_of_the_people_out(configs):
    found = plan(configs, "final.folds=2", "data.held_out=0")
    assert list(found.runs) == ["ssin-fold-1", "smin-fold-1", "ssin-fold-2", "smin-fold-2", "ssin", "smin"]
    fold, whole = found.config("smin-fold-2"), found.config("smin")
    assert Path(fold.run) == found.folder / "folds" / "2" / "smin"
    assert (fold.data.fold, fold.data.test, whole.data.fold, whole.data.test) == ("2/2", False, "", True)
    assert replace(fold, run=whole.run, data=whole.data) == whole
    assert list(plan(configs, "data.held_out=0", "final.weight=0.5").runs) == ["ssin", "smin"]
    with pytest.raises(ConfigError, match=r"data\.held_out is 0"):  # a search judges its trials by held-out people
        check(without_test_split(found), dict.fromkeys(STREAMS, 1))
    alone = replace(found, configs=found.configs[:1])
    with pytest.raises(ConfigError, match=r"ssin: data\.held_out is 0, wanted a share .* and has no folds"):
        without_test_split(alone)


def test_final_settings_come_from_the_configuration_folder(configs):
    (configs / "final.yaml").write_text("protocol: torchreid\nweight: 0.5\n")
    found = plan(configs, "final.weight=0.75").final
    assert (found.protocol, found.weight) == ("torchreid", 0.75)


def no_skeletons(walkers: Path, folder: Path) -> Path:
    """The data set without one modality; everything else is linked."""
    for path in walkers.iterdir():
        if "joint3d" not in path.name:
            (folder / path.name).symlink_to(path)
    return folder


REFUSED = {
    "unknown key": (["train.epoch=3"], "unknown key train.epoch; did you mean epochs?"),
    "not an override": (["train.epochs"], "'train.epochs': wanted section.key=value"),
    "run folder as an override": (["run=elsewhere"], "run= is an override, wanted --run FOLDER"),
    "unknown protocol": (["final.protocol=mars"], "final.protocol: unknown protocol 'mars'; legal names are"),
    "missing data": (["data.root=nowhere"], "nowhere/info/train_name.txt: no such file"),
    "missing weights": (["ssin.model.pretrained=resnet.pth"], "/resnet.pth: no such file"),
    "missing trunk": (["ssin.model.trunk=dinov2"], "/dinov2: no such folder; compute nodes have no internet"),
    "rates by layer of no trunk": (["ssin.optim.layer_decay=0.7"], "layer_decay is 0.7, wanted 1 without model.trunk"),
    "too few identities": (["smin.sampling.identities=90"], "smin: sampling.identities x sampling.tracklets is 90 x 2"),
    "no row long enough": (["data.min_length=9999"], "ssin: no training tracklet is left"),
    "different splits": (["ssin.data.split_seed=1"], "data.held_out and data.split_seed must be the same"),
    "nothing to choose on": (["data.held_out=0"], "set final.weight or final.folds"),
    "nothing to calibrate by": (
        ["data.held_out=0", "final.weight=0.5", "final.normalisation=calibrated"],
        "nobody can choose the fusion: final.normalisation=calibrated takes them, set another one or final.folds",
    ),
    "more folds than pairs of people": (["final.folds=50"], "ssin-fold-1: 50 folds of"),
    "one fold": (["final.folds=1"], "final.folds is 1, wanted 0 for none, or at least 2"),
    "folds for a weight that is given": (["final.folds=2", "final.weight=0.5"], "final.folds is 2 with a weight"),
    "weights that sum to 2": (["final.weights.x=2"], "final.weights are {'x': 2.0}, wanted shares from 0 to 1"),
    "a final key that is none": (["final.protocl=x"], "unknown key final.protocl; did you mean protocol?"),
    "a final key without a value": (["final.weight"], "override 'final.weight': wanted section.key=value"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("launcher", [local, slurm], ids=["local", "slurm"])
def test_bad_input_is_one_sentence_and_nothing_is_started(launcher, case, configs, tmp_path, monkeypatch, capsys):
    words, sentence = REFUSED[case]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(subprocess, "Popen", None)
    run = tmp_path / "run"
    code = launcher.main(["--stream", "both", "--config", str(configs), "--run", str(run), *words])
    out, err = capsys.readouterr()
    assert code == 2
    assert not run.exists()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"sptskm {launcher.__name__.split('.')[-1]}: ")
    assert sentence in err


def test_an_error_is_told_behind_the_command_that_was_typed(monkeypatch, capsys):
    for typed, told in (
        ("launch/slurm.py", "launch/slurm.py"),
        ("sptskm slurm", "sptskm slurm"),
        ("my.py", "sptskm slurm"),
    ):
        monkeypatch.setattr("sys.argv", [typed])
        assert slurm.main(["--stream", "both", "--config", "nowhere"]) == 2
        assert capsys.readouterr().err.startswith(f"{told}: nowhere: no such folder")


def test_what_is_wrong_in_any_file_is_told_at_once(configs, tmp_path, capsys):
    (tmp_path / "wrong").mkdir()
    for name in ("ssin", "smin"):
        text = (configs / f"{name}.yaml").read_text()
        (tmp_path / "wrong" / f"{name}.yaml").write_text(text.replace("epochs: ", "epoch: "))
    (tmp_path / "wrong" / "final.yaml").write_text("weight: 2\nrerank: 1\n")
    assert local.main(["--stream", "both", "--config", str(tmp_path / "wrong"), "--run", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for name, sentence in (
        ("ssin", "unknown key train.epoch; did you mean epochs?"),
        ("smin", "unknown key train.epoch; did you mean epochs?"),
        ("final", "weight is 2.0, wanted at most 1; rerank is 1, wanted bool"),
    ):
        assert f"{tmp_path / 'wrong' / name}.yaml: {sentence}" in err


def test_weights_that_training_could_not_use_are_refused_when_submitted(configs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / "w.pth").write_text("<!DOCTYPE html><html>Virus scan warning</html>")
    words = ["--stream", "ssin", "--config", str(configs), f"model.pretrained={tmp_path / 'w.pth'}"]
    assert local.main([*words, "--run", str(tmp_path / "run")]) == 2
    assert f"ssin: weights {tmp_path / 'w.pth'}: is a web page (HTML)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("launcher", [local, slurm], ids=["local", "slurm"])
def test_launchers_answer_from_every_folder_and_take_one_stream_or_both(launcher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launcher.main(["--stream", "both", "--config", "demo"]) == 2
    assert f"{tmp_path / 'data'}" in capsys.readouterr().err, "only the data is not there"
    assert launcher.main(["--stream", "ssin", "smin", "--config", "demo"]) == 2
    assert f"--stream is ssin smin, wanted one of {', '.join(STREAMS)}, both or all" in capsys.readouterr().err
    assert launcher.main(["--stream", "ssin", "--config", "demo", "--run", ""]) == 2
    assert "--run is empty" in capsys.readouterr().err
    assert launcher.main(["--stream", "ssin", "--config", "a\x1b[2J"]) == 2
    assert "a\\x1b[2J: no such folder" in capsys.readouterr().err
    (tmp_path / "mine.yaml").touch()
    assert launcher.main(["--stream", "ssin", "--config", "mine.yaml"]) == 2
    assert "mine.yaml is a file, wanted a folder that holds ssin.yaml or smin.yaml" in capsys.readouterr().err


def test_zero_held_out_is_accepted_with_a_given_weight(configs):
    assert plan(configs, "data.held_out=0", "final.weight=0.5").final.weight == 0.5


def test_weights_for_one_stream_are_told_to_change_nothing(configs, capsys):
    plan(configs, "final.weight=0.5")
    assert capsys.readouterr().err == ""
    plan(configs, "final.weight=0.5", stream="ssin")
    assert capsys.readouterr().err == "final.weight is 0.5 and changes nothing: SSIN is evaluated alone\n"
    plan(configs, "final.weights={ssin: 0.4, smin: 0.6}", "final.streams=smin")
    assert "final.weights is {'ssin': 0.4, 'smin': 0.6} and changes nothing: SMIN" in capsys.readouterr().err


def test_a_missing_modality_folder_is_named_for_the_stream_that_needs_it(configs, walkers, tmp_path):
    root = no_skeletons(walkers, tmp_path)
    assert plan(configs, f"data.root={root}", stream="ssin")
    with pytest.raises(ValueError, match=r"^smin: needs skeletons, but none of 8 tracklets has any, as in .*joint3d"):
        plan(configs, f"data.root={root}")


def test_a_missing_split_of_a_modality_is_seen(configs, walkers, tmp_path):
    root = tmp_path / "partial"
    root.mkdir()
    for path in walkers.iterdir():
        if path.name != "bbox_test_mask":
            (root / path.name).symlink_to(path)
    with pytest.raises(ValueError, match=r"^ssin: needs masks, .*bbox_test_mask"):
        plan(configs, f"data.root={root}")


def test_a_configuration_of_the_other_stream_is_refused(configs):
    shutil.copy(configs / "ssin.yaml", configs / "smin.yaml")
    with pytest.raises(ValueError, match=r"smin\.yaml: stream is ssin, wanted smin"):
        plan(configs)


def test_a_global_batch_must_divide_over_the_ranks(configs):
    assert plan(configs, ranks=4)
    with pytest.raises(ValueError, match=r"^ssin: the global batch of 4 clips .* does not divide over 3 ranks"):
        plan(configs, ranks=3)
    with pytest.raises(ValueError, match=r"^smin: the global batch of 6 clips .* does not divide over 4 ranks"):
        plan(configs, "smin.sampling.tracklets=3", ranks=4)


@pytest.mark.parametrize("name", ["plan", "cluster", "jobs", "local", "requeue", "slurm"])
def test_importing_a_launcher_does_not_import_torch(name):
    code = f"import sys, sptskm.launching.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_jobs_are_pickled_by_reference_and_read_back_without_torch(configs, tmp_path):
    found = plan(configs)
    jobs = [*(TrainJob(config, 3) for config in found.configs), final_job(found, 3)]
    text = pickle.dumps(jobs)
    assert pickle.loads(text) == jobs  # noqa: S301
    assert b"sptskm.launching.jobs" in text
    assert len(text) < 5000, "settings, not code"
    (tmp_path / "jobs.pkl").write_bytes(text)
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')); sys.exit('torch' in sys.modules)"
    read = subprocess.run([sys.executable, "-c", code, str(tmp_path / "jobs.pkl")], cwd=ROOT, check=False)
    assert read.returncode == 0


def test_the_final_job_names_the_runs_in_the_order_of_the_plan(configs):
    found = plan(configs, "final.weight=0.5")
    runs = (str(found.folder / "ssin"), str(found.folder / "smin"))
    assert final_job(found, 3) == FinalJob(runs, str(found.out), found.final, 20.0, 3)


def test_a_checkpointed_job_is_submitted_again_as_it_is(configs):
    found = plan(configs)
    for job in (TrainJob(found.configs[0], 3), final_job(found, 3)):
        assert job.checkpoint().function == job


def test_the_request_of_a_job_is_its_complete_configuration(configs, tmp_path):
    config = plan(configs, "train.epochs=7").configs[0]
    assert Path(local.request(config, tmp_path / "run")).read_text() == to_yaml(config)


def test_a_protocol_that_asks_for_clothes_is_refused_for_data_without(configs, walkers, tmp_path):
    root = Path(shutil.copytree(walkers, tmp_path / "plain", ignore=shutil.ignore_patterns("clothes.csv")))
    assert plan(configs, "final.protocol=ccvid-clothes-changing")
    with pytest.raises(ValueError, match=r"^protocol ccvid-clothes-changing asks who wears what, and the data set has"):
        plan(configs, f"data.root={root}", "final.protocol=ccvid-clothes-changing")


def write_rules(path: Path, **changed: object) -> None:
    rules = {**vars(PROTOCOLS["torchreid"]), "name": "mine", **changed}
    path.write_text("".join(f"{key}: {str(value).lower()}\n" for key, value in rules.items()))


def test_held_out_tracklets_need_fit_a_protocol_only_where_they_choose_something(configs, tmp_path):
    write_rules(tmp_path / "mine.yaml", min_length=12, clothes="same")
    words = [f"final.protocol={tmp_path / 'mine.yaml'}"]
    assert plan(configs, *words, "final.weight=0.5")
    assert plan(configs, *words, stream="smin")
    with pytest.raises(ConfigError, match="held-out"):
        plan(configs, *words)


def test_data_of_one_camera_need_a_protocol_that_ranks_it(configs, tmp_path):
    path, splits = tmp_path / "walks.csv", [*["train"] * 4, "query", "gallery"]
    lines = [f"w{n},{n // 2},sensor,{split},w{n}.npy" for n, split in enumerate(splits)]
    path.write_text("\n".join(["tracklet,pid,camera,split,skeleton", *lines]))
    for n in range(len(splits)):
        np.save(tmp_path / f"w{n}.npy", np.ones((3, 14, 4), np.float32))
    words = [f"data.root={path}", "smin.data.held_out=0"]
    with pytest.raises(
        ConfigError, match=r"all test tracklets are of one camera, .* wanted final\.protocol=any-camera"
    ):
        plan(configs, *words, stream="smin")
    assert plan(configs, *words, "final.protocol=any-camera", stream="smin")


def test_a_protocol_of_ones_own_is_found_from_whatever_folder_a_job_runs_in(configs, tmp_path, monkeypatch):
    write_rules(tmp_path / "mine.yaml")
    monkeypatch.chdir(tmp_path)
    assert plan(configs, "final.protocol=mine.yaml").final.protocol == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("final.rerank_gigabytes=0.00001", "tracklets needs"),
        ("final.protocol=mine.yaml", "protocol mine leaves 0 quer"),
        ("final.protocol=theirs.yaml", "protocol theirs leaves none of the 1 held-out queries a positive"),
    ],
)
def test_what_the_final_job_would_refuse_is_refused_before_any_training(
    configs, tmp_path, monkeypatch, override, words
):
    write_rules(tmp_path / "mine.yaml", min_length=5000)
    write_rules(tmp_path / "theirs.yaml", name="theirs", min_length=12, clothes="same")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        plan(configs, "final.rerank=true", override)
