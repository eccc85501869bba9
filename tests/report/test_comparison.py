"""Two evaluations side by side, and several seeds of one."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sptskm.cli import main
from sptskm.data import DataError
from sptskm.report.comparison import compare, read_judged, summary

Judgement = dict[str, tuple[float | None, int]]  # AP and first hit by query


def write_evaluation(folder: Path, streams: dict[str, Judgement], **others: object) -> Path:
    """What the final job leaves of an evaluation, as far as it is compared."""
    folder.mkdir(parents=True)
    lines = []
    for stream, judged in streams.items():
        aps = [ap for ap, _ in judged.values() if ap is not None]
        hits = [first == 1 for ap, first in judged.values() if ap is not None]
        metrics = {"mAP": float(np.mean(aps)), **{f"rank-{k}": float(np.mean(hits)) for k in (1, 5, 10, 20)}}
        lines.append({"queries": "all", "stream": stream, "gallery": 9, **metrics})
    results = {"protocol": "mars-official", "results": lines, "test_evaluations": 2, **others}
    (folder / "results.json").write_text(json.dumps(results))
    with (folder / "queries.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        judgements = [f"{stream}_{what}" for stream in streams for what in ("ap", "first_hit")]
        writer.writerow(["tracklet", "pid", "camera", "clothes_changed", *judgements])
        for number, key in enumerate(next(iter(streams.values()))):
            cells = [cell for judged in streams.values() for cell in judged[key]]
            writer.writerow([key, 1, 1, number % 2, *("" if cell is None else cell for cell in cells)])
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
    assert lines[6].startswith("protocol mars-official, 40 queries")


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
    other = write_evaluation(tmp_path / "b", {"ssin": many(0)}, protocol="torchreid")
    fewer = write_evaluation(tmp_path / "c", {"ssin": dict(list(many(0).items())[1:])})
    with pytest.raises(DataError, match=r"mars-official with 9 gallery rows and b:ssin of torchreid"):
        compare(str(a), str(other))
    with pytest.raises(DataError, match=r"a:ssin and c:ssin are of different queries \(1, such as T00\)"):
        compare(str(a), str(fewer))
    with pytest.raises(DataError, match=r"protocols mars-official and torchreid, wanted one"):
        summary([a, other])
    with pytest.raises(FileNotFoundError, match=r"results.json: no such file, wanted a folder that `sptskm evaluate`"):
        compare(str(a), str(tmp_path / "nowhere"))


def test_seeds_are_summed_up_as_mean_and_standard_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_evaluation(tmp_path / str(n), {"ssin": many(n / 10)}) for n in range(3)]
    assert main(["summary", *map(str, folders)]) == 0
    out = capsys.readouterr().out
    means = [100 * np.mean([ap for ap, _ in many(n / 10).values()]) for n in range(3)]
    assert f"{np.mean(means):.1f} ± {np.std(means, ddof=1):.1f}" in out
    assert out.splitlines()[2].split()[-1] == "3"
    assert "test was evaluated 2, 2, 2 times" in out
