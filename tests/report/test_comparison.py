"""Two evaluations side by side, and several seeds of one."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sptskm.cli import main
from sptskm.common.errors import DataError
from sptskm.evaluation import PROTOCOLS
from sptskm.report.comparison import compare, read_judged, summary

Judgement = dict[str, tuple[float | None, int]]  # AP and first hit by query


def write_evaluation(folder: Path, streams: dict[str, Judgement], **others: object) -> Path:
    """What the final job leaves of an evaluation, as far as it is compared."""
    folder.mkdir(parents=True)
    lines = []
    for stream, judged in streams.items():
        aps = [ap for ap, _ in judged.values() if ap is not None]
        hits = [first == 1 for ap, first in judged.values() if ap is not None]
        shares = {f"rank-{k}": float(np.mean(hits)) if hits else None for k in (1, 5, 10, 20)}
        metrics = {"mAP": float(np.mean(aps)) if aps else None, **shares}
        counts = {"used": len(aps), "skipped": len(judged) - len(aps)}
        lines.append({"queries": "all", "stream": stream, **counts, **metrics})
    results = {
        "protocol": "mars-official",
        "rules": vars(PROTOCOLS["mars-official"]),
        "test_data": "f" * 16,
        "results": lines,
        "test_evaluations": 2,
        **others,
    }
    (folder / "results.json").write_text(json.dumps(results))
    with (folder / "queries.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        judgements = [f"{stream}_{what}" for stream in streams for what in ("ap", "first_hit")]
        writer.writerow(["tracklet", "pid", "camera", "clothes_changed", *judgements])
        for number, key in enumerate(next(iter(streams.values()))):
            cells = [cell for judged in streams.values() for cell in judged[key]]
            writer.writerow([key, number, 1, number % 2, *("" if cell is None else cell for cell in cells)])
    return folder


def many(shift: float, seed: int = 0) -> Judgement:
    found = np.random.default_rng(seed).uniform(0.2, 0.6, 40) + shift
    return {f"T{number:02d}": (float(ap), 1 if ap > 0.5 else 3) for number, ap in enumerate(found)}


def test_a_ranking_is_named_by_its_folder_and_stream(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "run" / "final", {"ssin": many(0), "fused": many(0.1)})
    assert read_judged(str(folder)).name == "run:fused"
    assert read_judged(f"{folder}:ssin").ap_Q.tolist() == [ap for ap, _ in many(0).values()]
    with pytest.raises(DataError, match=r"has no ranking smin, wanted one of ssin, fused"):
        read_judged(f"{folder}:smin")


def test_what_is_better_and_for_how_many_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_evaluation(tmp_path / "final", {"ssin": many(0), "fused": many(0.1)})
    assert main(["compare", f"{folder}:ssin", f"{folder}:fused"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["mAP,", "all"]
    assert "+10.0" in lines[2]
    assert lines[2].split()[-4:] == ["0.0001", "40", "0", "0"]
    assert [line.split()[1] for line in lines[2:6]] == ["all", "all", "clothes", "clothes"]
    assert lines[6] == "protocol mars-official, 40 queries of 40 identities"
    assert lines[7].startswith("interval: bootstrap over people, with all their queries; p: paired permutation test")


def test_the_queries_that_change_most_are_named(tmp_path: Path) -> None:
    before, after = many(0), many(0)
    after["T07"], after["T09"] = (0.99, 1), (0.01, 9)
    a = write_evaluation(tmp_path / "a", {"ssin": before})
    text = compare(str(a), str(write_evaluation(tmp_path / "b", {"ssin": after})))
    assert f"gain most: T07 {100 * before['T07'][0]:.0f} -> 99\n" in text  # type: ignore[operator]
    assert text.endswith(f"lose most: T09 {100 * before['T09'][0]:.0f} -> 1")  # type: ignore[operator]


def test_rows_are_joined_by_tracklet_whatever_their_order(tmp_path: Path) -> None:
    turned = dict(reversed(many(0).items()))
    a, b = (write_evaluation(tmp_path / n, {"ssin": j}) for n, j in (("a", many(0)), ("b", turned)))
    assert "gain most: none" in compare(str(a), str(b))


def test_a_query_that_is_skipped_on_either_side_does_not_count(tmp_path: Path) -> None:
    skipped = many(0)
    skipped["T03"] = (None, 0)
    a, b = (write_evaluation(tmp_path / n, {"ssin": j}) for n, j in (("a", many(0)), ("b", skipped)))
    assert "39 queries" in compare(str(a), str(b))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a = write_evaluation(tmp_path / "a", {"ssin": many(0)})
    fewer = write_evaluation(tmp_path / "c", {"ssin": dict(list(many(0).items())[1:])})
    with pytest.raises(DataError, match=r"a:ssin and c:ssin are of different queries \(1, such as T00\)"):
        compare(str(a), str(fewer))
    with pytest.raises(FileNotFoundError, match=r"results.json: no such file, wanted a folder that `sptskm evaluate`"):
        compare(str(a), str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (
            {"rules": {**vars(PROTOCOLS["mars-official"]), "min_length": 30}},
            r"differ in min_length \(0 and 30\), wanted",
        ),
        ({"test_data": "0" * 16}, f"differ in test data \\({'f' * 16} and {'0' * 16}\\), wanted"),
    ],
)
def test_other_rules_of_one_name_and_other_test_data_are_neither_compared_nor_summed_up(
    tmp_path: Path, others: dict[str, object], words: str
) -> None:
    a = write_evaluation(tmp_path / "a", {"ssin": many(0)})
    b = write_evaluation(tmp_path / "b", {"ssin": many(0)}, **others)
    with pytest.raises(DataError, match=words):
        compare(str(a), str(b))
    with pytest.raises(DataError, match=words):
        summary([a, b])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty, wanted JSON"),
        ("[]", "the value is [], wanted an object"),
        ("null", "the value is None, wanted an object"),
        ('{"protocol": "x"}', "lacks results"),
        ('{"protocol": "mars-official", "rul', "column 31 is not JSON (Unterminated string starting at), wanted JSON"),
        ("[" * 100_000, "is nested too deeply, wanted fewer lists and objects within each other"),
    ],
)
def test_damaged_results_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    folder = write_evaluation(tmp_path / "a", {"ssin": many(0)})
    (folder / "results.json").write_text(content)
    for arguments in (["compare", str(folder), str(folder)], ["summary", str(folder)]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said == f"sptskm: {folder}/results.json: {told}; wanted the file as `sptskm evaluate` wrote it\n"


def test_results_that_do_not_tell_their_rules_are_to_be_evaluated_again(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", {"ssin": many(0)})
    saved = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({k: saved[k] for k in saved if k != "rules"}))
    with pytest.raises(DataError, match=r"results.json: does not tell its rules and test data, .*: evaluate again"):
        summary([folder])


@pytest.mark.parametrize("cut", [1, 2, 9, 40, 3000])
def test_lines_that_are_cut_off_are_told(tmp_path: Path, cut: int) -> None:
    """Within the last number, before it, between lines, with the header."""
    folder = write_evaluation(tmp_path / "a", {"ssin": many(0)})
    lines = (folder / "queries.csv").read_bytes()
    (folder / "queries.csv").write_bytes(lines[:-cut])
    with pytest.raises(DataError, match=r"queries.csv: is damaged"):
        compare(str(folder), str(folder))
    (folder / "queries.csv").write_bytes(lines[: lines.rindex(b"T")])
    with pytest.raises(DataError, match=r"queries.csv: is damaged"):
        compare(str(folder), str(folder))


def test_a_ranking_may_be_spelled_as_the_tables_do_and_a_path_may_hold_a_colon(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "12:30", {"ssin": many(0), "smin": many(0.1)})
    assert read_judged(f"{folder}:SMIN").name == "12:30:smin"
    assert read_judged(str(folder)).name == "12:30:ssin"
    with pytest.raises(DataError, match=r"12:30: has no ranking other, wanted one of ssin, smin"):
        read_judged(f"{folder}:other")


def test_what_is_not_there_is_a_dash(tmp_path: Path) -> None:
    single = write_evaluation(tmp_path / "a", {"ssin": {"T0": (0.25, 4)}}, test_evaluations=1)
    nobody = write_evaluation(tmp_path / "b", {"ssin": {"T0": (None, 0)}})
    assert "25.0 ± -" in summary([single])
    assert summary([single]).endswith("test was evaluated 1 time")
    assert summary([nobody]).splitlines()[2].split() == ["all", "SSIN", "-", "-", "-", "-", "-", "1"]
    assert summary([single, nobody]).splitlines()[2].split()[2] == "-"
    told = compare(str(single), str(single)).splitlines()
    assert told[2].split()[-5:] == ["-", "1.0000", "0", "0", "1"]
    assert "protocol mars-official, 1 query of 1 identity" in told


def test_one_network_evaluated_twice_is_no_second_seed(tmp_path: Path) -> None:
    origins = [{"provenance": {"ssin": {"network": name}}} for name in ("a1", "b2", "a1")]
    folders = [write_evaluation(tmp_path / str(n), {"ssin": many(0)}, **origin) for n, origin in enumerate(origins)]
    assert summary(folders[:2]).splitlines()[2].split()[-1] == "2"
    with pytest.raises(DataError, match=f"{folders[0]} and {folders[2]} evaluate the same networks"):
        summary(folders)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rules": None}, "rules is None, wanted"),
        ({"test_evaluations": -1}, "test_evaluations is -1, wanted"),
        ({"stream": "face"}, r"results\[0\].stream is 'face', wanted 'ssin'"),
        ({"mAP": 10.5}, r"results\[0\].mAP is 10.5, wanted"),
        ({"rank-1": "0.5"}, r"results\[0\].rank-1 is '0.5', wanted"),
        ({"used": 1.5}, r"results\[0\].used is 1.5, wanted"),
    ],
)
def test_results_that_cannot_be_are_told_by_their_place(tmp_path: Path, change: dict[str, object], told: str) -> None:
    folder = write_evaluation(tmp_path / "final", {"ssin": many(0)})
    content = json.loads((folder / "results.json").read_text())
    (line,) = content["results"]
    content |= {name: value for name, value in change.items() if name in content}
    content["results"] = [line | {name: value for name, value in change.items() if name in line}]
    (folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=told):
        summary([folder])


@pytest.mark.parametrize("cells", ["1.5,1", "-0.1,1", "nan,1", "0.5,-1", "0.5,1.5", "0.5", "0.5,1,2", "x,1"])
def test_a_judgement_that_cannot_be_is_told_by_its_line(tmp_path: Path, cells: str) -> None:
    folder = write_evaluation(tmp_path / "final", {"ssin": many(0)})
    lines = (folder / "queries.csv").read_text().splitlines(keepends=True)
    lines[3] = f"T02,2,1,0,{cells}\n"
    (folder / "queries.csv").write_text("".join(lines))
    with pytest.raises(DataError, match=r"queries.csv: is damaged in line 4, wanted"):
        read_judged(str(folder))


def test_a_query_that_stands_twice_is_damage(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "final", {"ssin": many(0)})
    lines = (folder / "queries.csv").read_text().splitlines(keepends=True)
    lines[3] = lines[2]
    (folder / "queries.csv").write_text("".join(lines))
    with pytest.raises(DataError, match=r"queries.csv: is damaged in line 4, wanted"):
        read_judged(str(folder))


def test_a_folder_named_from_within_its_run_is_called_like_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_evaluation(tmp_path / "run" / "final", {"ssin": many(0)})
    monkeypatch.chdir(tmp_path / "run")
    assert read_judged("final:ssin").name == "run:ssin"


def test_seeds_are_summed_up_as_mean_and_standard_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_evaluation(tmp_path / str(n), {"ssin": many(n / 10)}) for n in range(3)]
    assert main(["summary", *map(str, folders)]) == 0
    out = capsys.readouterr().out
    means = [100 * np.mean([ap for ap, _ in many(n / 10).values()]) for n in range(3)]
    assert f"{np.mean(means):.1f} ± {np.std(means, ddof=1):.1f}" in out
    assert out.splitlines()[2].split()[-1] == "3"
    assert "test was evaluated 2, 2, 2 times" in out


def configured(folder: Path, seed: int, **optim: float) -> str:
    """An evaluation of a run with this seed and these settings."""
    write_evaluation(folder, {"ssin": many(seed / 10)})
    results = json.loads((folder / "results.json").read_text())
    results["configs"] = {"ssin": {"train": {"seed": seed}, "optim": {"lr": 0.1, **optim}, "run": str(folder)}}
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def test_an_evaluation_of_before_that_tells_of_weights_by_camera_is_summed_up_with_one_of_now(tmp_path: Path) -> None:
    before, now = configured(tmp_path / "0", 0), configured(tmp_path / "1", 1)
    path = Path(before) / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "settings": {"camera_weights": False}}))
    assert main(["summary", before, now]) == 0
    assert main(["compare", before, now]) == 0
    path.write_text(json.dumps({**results, "settings": {"camera_weights": True}}))
    assert main(["summary", before, now]) != 0


def test_runs_of_other_settings_or_equal_seeds_are_no_repetitions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero, one = configured(tmp_path / "0", 0), configured(tmp_path / "1", 1)
    assert main(["summary", zero, one]) == 0
    other, again = configured(tmp_path / "2", 2, lr=0.5), configured(tmp_path / "3", 1)
    capsys.readouterr()
    assert main(["summary", zero, one, other]) == 2
    assert f"{zero} and {other} are of other settings (ssin.optim.lr: 0.1 and 0.5)" in capsys.readouterr().err
    assert main(["summary", zero, one, again]) == 2
    assert f"{one} and {again} have the same seeds (ssin.train.seed 1)" in capsys.readouterr().err
