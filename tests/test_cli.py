"""The command line `sptskm`: what is printed, and how it ends."""

import subprocess
import sys

import pytest
import yaml
from helpers.launching import ROOT

from sptskm import cli
from sptskm.cli import main
from sptskm.common.endings import EXIT_BAD_INPUT, EXIT_STOPPED, sentence
from sptskm.config import SSIN_DEFAULTS, Final
from sptskm.configfile import flat, to_dict
from sptskm.launching.plan import make_plan, parser


def test_config_prints_every_value_with_overrides_applied(capsys):
    assert main(["config", str(ROOT / "configs/mars/ssin.yaml"), "train.epochs=7"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    expected = to_dict(SSIN_DEFAULTS)
    expected["train"]["epochs"] = 7
    assert shown == expected


def test_config_of_a_folder_is_what_a_launcher_would_run(capsys, tmp_path):
    words = ["demo", "train.epochs=7", "--run", str(tmp_path), "smin.train.epochs=9", "final.rerank=true"]
    assert main(["config", *words]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    plan = make_plan(parser("").parse_intermixed_args(["--config", *words, "--stream", "all"]))
    assert shown == {**{config.stream: to_dict(config) for config in plan.configs}, "final": to_dict(plan.final)}
    assert (shown["ssin"]["train"]["epochs"], shown["smin"]["train"]["epochs"]) == (7, 9)
    assert shown["smin"]["run"] == str(tmp_path / "smin")
    assert main(["config", "--stream", "smin", *words]) == 0
    assert list(yaml.safe_load(capsys.readouterr().out)) == ["smin", "final"]
    (tmp_path / "final.yaml").write_text("weight: 0.25\n")
    assert main(["config", str(tmp_path / "final.yaml"), "rerank=true"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == to_dict(Final(rerank=True, weight=0.25))


def test_the_help_of_config_tells_every_key_with_type_range_default_and_meaning(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["config", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in flat(to_dict(SSIN_DEFAULTS)) | {f"final.{name}": None for name in vars(Final())}:
        assert f" {name} (" in told or name in ("stream", "run")
    assert "optim.lr (number; more than 0; default ssin: 0.0003, smin: 0.1" in told
    assert "train.epochs (whole number; at least 1; default ssin: 1000, smin: 200" in told
    assert "minutes (whole number; at least 1, at most 10000000; default 1440) Time limit of a job" in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["config", "demo", "--stream", "ssim"], "--stream is ssim, wanted one of ssin, smin"),
        (["config", "configs/mars/ssin.yaml", "--stream", "ssin"], "is a file, wanted a folder with --stream"),
        (["config", "no/where"], "no/where: no such folder"),
        (["config", "configs/mars/ssin.yaml", "train.epoch=7"], "unknown key train.epoch; did you mean epochs?"),
        (["train", "nowhere.yaml"], "sptskm: nowhere.yaml: no such file"),
        (["train", "configs/mars/ssin.yaml"], "run is empty, wanted the folder of this run"),
        (["check", "nowhere"], "nowhere/info/train_name.txt: no such file"),
        (["evaluate", "nowhere", "--out", "nowhere/final"], "nowhere: no readable checkpoint"),
        (["evaluate", "nowhere", "--out", "x", "--final", "typo.yaml"], "sptskm: typo.yaml: no such file"),
        (["evaluate", "nowhere", "--out", "x", "--set", "protocl=torchreid"], "unknown key final.protocl"),
        (["evaluate", "--explain", "nowhere", "--protocol", "a #1/2024: x.yaml"], "a #1/2024: x.yaml: no such file"),
        (["config", f"{ROOT}/docs/report.png"], "docs/report.png: line 1 (byte 0) is not UTF-8 text"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == EXIT_BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("sptskm: ")
    assert sentence in err


def test_check_ends_with_0_for_a_good_data_set_and_with_2_otherwise(walkers, tmp_path, capsys):
    assert main(["check", str(walkers), "--quick", "--workers", "1"]) == 0
    (tmp_path / "info").symlink_to(walkers / "info")
    assert main(["check", str(tmp_path), "--workers", "1"]) == EXIT_BAD_INPUT
    assert "holds no folder of frames" in capsys.readouterr().out


def test_the_exit_codes_are_those_that_the_launchers_and_schedulers_know():
    assert (EXIT_BAD_INPUT, EXIT_STOPPED) == (2, 75)


def test_help_and_config_answer_without_torch():
    code = "import sys; from sptskm.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = ["config", "configs/mars/smin.yaml"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stream: smin")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what sptskm itself raised is shortened to a sentence."""
    monkeypatch.setattr(cli, "write_dataset", lambda *_, **__: int("not a number"))
    with pytest.raises(ValueError, match="not a number"):
        main(["synth", "anywhere"])


def test_the_quality_of_masks_and_skeletons_is_a_table_and_pictures(walkers, tmp_path, capsys):
    assert cli.main(["check", str(walkers), "--quality", "--tracklets", "5", "--out", str(tmp_path / "quality")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("measure ")
    assert "5 of 53 tracklets measured" in out
    pictures = {path.name for path in (tmp_path / "quality").glob("*.png")}
    assert pictures == {"worst-frames.png", "skeletons-before-and-after-normalisation.png"}
    assert list((tmp_path / "quality").glob("events*"))


@pytest.mark.parametrize(("value", "code"), [("", 0), ("0", 0), ("no number", 2)])
def test_a_rank_that_is_empty_is_none_and_one_that_is_no_number_is_one_sentence(monkeypatch, capsys, value, code):
    monkeypatch.setenv("RANK", value)
    assert main(["config", str(ROOT / "configs" / "demo" / "smin.yaml")]) == code
    assert (
        capsys.readouterr().err
        == "sptskm: the environment says RANK='no number', wanted a whole number from 0 on, or nothing\n" * bool(code)
    )


def test_what_a_file_holds_neither_fills_nor_commands_a_terminal():
    told = sentence(ValueError("m.csv: line 3 is \x1b[2J\u202e\udcff" + "x" * 100_000 + "\nand more, wanted a name"))
    assert told.startswith(r"m.csv: line 3 is \x1b[2J\u202e\udcffxxx")
    assert told.endswith("xxx and more, wanted a name")
    assert len(told) <= 600
    assert told.isprintable()


@pytest.mark.parametrize("short", ["nowhere: no such file", "räumlich: 3x4, wanted 雨"])
def test_a_short_sentence_is_shown_as_it_is(short):
    assert sentence(ValueError(short)) == short
