"""The final job: two trained streams in, a table with its protocol out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from helpers.pairs import fused_pair
from helpers.small import small_config, training_part
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.common.endings import Stopped
from sptskm.common.paths import fold_folder
from sptskm.config import ConfigError, Final
from sptskm.configfile import load_final
from sptskm.data import read_mars
from sptskm.evaluation import PROTOCOLS, pair_weight, protocol, rerank, squared_distances
from sptskm.evaluation.fusion import NormalisedDistances
from sptskm.evaluation.results import title_of
from sptskm.final import final, fuse_held_out
from sptskm.report.comparison import compare, read_judged
from sptskm.training.signals import StopFlag
from sptskm.training.trainer import train

# pictures are drawn once, for `results`, which is made before this applies; the others are about numbers
pytestmark = pytest.mark.usefixtures("without_drawing")


@pytest.fixture(scope="module")
def runs(trained: dict[str, Path]) -> dict[str, Path]:
    """A finished run of each stream."""
    return trained


@pytest.fixture(scope="module")
def results(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("final")
    return out, final([runs["ssin"], runs["smin"]], out, Final())


def test_every_line_carries_protocol_and_counts(results, walkers):
    out, _ = results
    table = read_mars(walkers)
    saved = json.loads((out / "results.json").read_text())
    lines = [(line["queries"], line["stream"]) for line in saved["results"]]
    assert lines == [(q, s) for q in ("all", "clothes changed") for s in ("ssin", "smin", "fused")]
    for line in saved["results"]:
        assert line["protocol"] == "mars-official"
        assert line["gallery"] == len(table.test)
        assert 0 <= line["mAP"] <= line["rank-20"] <= 1
    everything = saved["results"][0]
    assert everything["used"] + everything["skipped"] == len(table.query)
    assert saved["results"][3]["used"] < everything["used"]


def test_the_table_shows_what_results_json_holds(results):
    out, shown = results
    saved = json.loads((out / "results.json").read_text())
    for line in saved["results"]:
        assert f"{100 * line['mAP']:.1f}" in shown.text()
    assert "protocol mars-official" in shown.text()
    assert f"weight of SMIN {saved['fusion']['weight']:.2f}" in shown.text()


def test_the_weight_is_chosen_on_held_out_identities_that_never_trained(results):
    _, shown = results
    assert shown.fusion.curve_WS.shape == (21, 2)
    assert 0 <= shown.fusion.weight <= 1
    assert shown.fusion.weights == shown.fusion.offer.weights


def test_too_few_held_out_identities_choose_the_better_stream_and_say_so(results, runs):
    out, shown = results
    better = max(runs, key=lambda stream: held_out_mAP(runs[stream]))
    offer, saved = shown.fusion.offer, json.loads((out / "results.json").read_text())
    assert offer.identities < 8
    assert shown.offered == saved["offered"] == offer.better == better
    assert (saved["fusion"]["offer"]["p"], saved["fusion"]["offer"]["weights"]) == (None, saved["fusion"]["weights"])
    reason = f"the result is {better.upper()}, the better stream of {offer.identities} held-out identities"
    assert reason in shown.text()
    assert reason[1:] in (out / "report.html").read_text()


def test_provenance_says_what_was_trained_on_what(results):
    out, _ = results
    saved = json.loads((out / "results.json").read_text())
    assert saved["provenance"]["ssin"]["fingerprint"] == saved["provenance"]["smin"]["fingerprint"]
    assert saved["provenance"]["ssin"]["split"] == saved["provenance"]["smin"]["split"]
    assert saved["provenance"]["ssin"]["command"], "what was typed to train"
    assert saved["configs"]["smin"]["clips"]["test_frames"] == 8
    assert saved["test_evaluations"] == 1


def test_features_load_without_pickle_and_carry_their_keys(results, walkers):
    out, _ = results
    table = read_mars(walkers)
    with np.load(out / "features-smin.npz", allow_pickle=False) as saved:
        assert saved["keys"].tolist() == table.keys_N[table.test].tolist()
        assert saved["features"].shape == (len(table.test), 8)
        assert str(saved["fingerprint"]) == table.fingerprint
        assert not saved["valid"].all()


def test_the_board_has_pictures_whose_tags_group_and_no_charts_of_one_point(results):
    out, _ = results
    events = EventAccumulator(str(out)).Reload()
    assert set(events.Tags()["images"]) >= {
        *("results/CMC", "results/fusion weight", "ranked/best", "insight/attention", "insight/joints")
    }
    assert (out / "ranked-results-best.png").is_file()
    assert not [
        path for path in out.rglob("events.out.tfevents.*") if EventAccumulator(str(path)).Reload().scalars.Keys()
    ]


def test_the_report_shows_everything_that_the_runs_know(results, runs):
    out, _ = results
    content = (out / "report.html").read_text()
    for part in ("results", "ranked", "cameras", "distances", "insight", "training", "provenance", "glossary"):
        assert f'<section id="{part}">' in content
    for run in runs.values():
        assert f"As logged in {run}" in content
    saved = json.loads((out / "results.json").read_text())
    assert saved["provenance"]["ssin"]["split"] in content
    assert (out / "projector" / "projector_config.pbtxt").is_file()


def test_doing_it_again_gives_the_same_numbers_and_counts_the_look_at_test(runs, results, tmp_path):
    out, first = results
    copy = tmp_path / "final"
    shutil.copytree(out, copy)
    again = final([runs["smin"], runs["ssin"]], copy, Final())
    assert again.lines() == first.lines()
    assert json.loads((copy / "results.json").read_text())["test_evaluations"] == 2
    assert len(list(copy.glob("events*"))) == 1


def test_another_protocol_gives_other_numbers_under_its_name(runs, results, tmp_path):
    _, official = results
    found = final([runs["ssin"], runs["smin"]], tmp_path, Final(protocol="mars-standard"))
    assert {line["protocol"] for line in found.lines()} == {"mars-standard"}
    assert found.lines()[0]["mAP"] != official.lines()[0]["mAP"]


def test_one_stream_alone_is_evaluated_without_fusion(runs, tmp_path, caplog):
    found = final([runs["smin"]], tmp_path, Final(weight=0.5))
    assert [line["stream"] for line in found.lines()] == ["smin", "smin"]
    assert found.fusion is None
    assert "final.weight is 0.5 and changes nothing: SMIN is evaluated alone" in caplog.messages


@pytest.mark.parametrize("stream", ["smin", "ssin"])
def test_each_stream_needs_only_its_own_inputs(walkers, tmp_path, stream):
    """SMIN without a single frame or mask, SSIN without a single skeleton."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(walkers, data)
    own = ("_joint3d",) if stream == "smin" else ("bbox_train", "bbox_test", "_mask")
    for folder in data.glob("bbox*"):
        if not folder.name.endswith(own):
            shutil.rmtree(folder)
    train(small_config(stream, data, run, "train.epochs=1"))
    assert final([run], tmp_path / "final", Final()).lines()[0]["used"] > 0


def test_runs_of_different_data_or_split_are_refused(walkers, runs, tmp_path):
    other = tmp_path / "other"
    train(small_config("smin", walkers, other, "train.epochs=1", "data.split_seed=5"))
    with pytest.raises(ConfigError, match="differ in split"):
        final([runs["ssin"], other], tmp_path / "out", Final())


def never(*_: object) -> None:
    raise AssertionError("features were extracted first")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("protocol: {path}", "protocol mine leaves 0 queries"),
        ("rerank: true\nrerank_gigabytes: 0.00001", "re-ranking 26 tracklets needs"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_extracted(runs, tmp_path, monkeypatch, settings, words):
    rules = {**vars(PROTOCOLS["torchreid"]), "name": "mine", "min_length": 5000}
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{key}: {str(value).lower()}\n" for key, value in rules.items()))
    (tmp_path / "final.yaml").write_text(settings.format(path=path))
    monkeypatch.setattr("sptskm.final.extract", never)
    with pytest.raises(ValueError, match=words):
        final([runs["ssin"]], tmp_path / "out", load_final(tmp_path / "final.yaml"))


def test_a_protocol_that_the_held_out_cannot_serve_is_refused_before_anything_is_extracted(runs, tmp_path, monkeypatch):
    rules = {**vars(PROTOCOLS["torchreid"]), "name": "mine", "min_length": 12, "clothes": "same"}
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{key}: {str(value).lower()}\n" for key, value in rules.items()))
    assert final(runs.values(), tmp_path / "given", Final(str(path), weight=0.5))
    monkeypatch.setattr("sptskm.final.extract", never)
    with pytest.raises(ConfigError, match="protocol mine leaves none of the 1 held-out queries a positive"):
        final(runs.values(), tmp_path / "out", Final(str(path)))


def test_the_test_part_is_evaluated_by_a_run_that_was_trained_without_it(runs, tmp_path):
    run = Path(shutil.copytree(runs["smin"], tmp_path / "run"))
    state = torch.load(run / "best.pt", weights_only=True)
    state["config"]["data"]["test"] = False
    torch.save(state, run / "best.pt")
    found = final([run], tmp_path / "out", Final(), ["data.test=false"])
    assert found.lines() == final([runs["smin"]], tmp_path / "other", Final()).lines()


def test_a_run_whose_training_has_not_ended_is_evaluated_with_a_warning_and_says_so(runs, tmp_path, caplog):
    run = Path(shutil.copytree(runs["smin"], tmp_path / "run", ignore=shutil.ignore_patterns("result.json")))
    for stream, folder, finished in (("smin", run, False), ("ssin", runs["ssin"], True)):
        caplog.clear()
        found = final([folder], tmp_path / stream, Final())
        assert ("SMIN had not finished training" in found.caption()) is not finished
        saved = json.loads((tmp_path / stream / "results.json").read_text())
        assert saved["provenance"][stream]["finished"] is finished
        assert (f"{folder}: training has not finished" in caplog.text) is not finished
        assert ("no: these are the weights so far" in (tmp_path / stream / "report.html").read_text()) is not finished


@pytest.mark.parametrize("override", ["model.width=8", "model.embedding_dim=4"])
def test_weights_that_do_not_fit_the_configuration_are_one_sentence(runs, tmp_path, override):
    with pytest.raises(ConfigError, match=r"smin: the weights do not fit .*: \S+ is \(.*\), wanted \(.*\)$"):
        final([runs["smin"]], tmp_path / "out", Final(), [override])


def test_a_place_for_results_that_is_none_is_refused_before_anything_is_extracted(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("sptskm.final.extract", never)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: File exists, wanted a folder for the results"):
        final([runs["ssin"]], tmp_path / "file", Final())
    (tmp_path / "out" / "results.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="out: Is a directory, wanted a folder for the results"):
        final([runs["ssin"]], tmp_path / "out", Final())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "figures").touch()
    with pytest.raises(ConfigError, match="other/figures: Not a directory, wanted a folder for the figures"):
        final([runs["ssin"]], tmp_path / "other", Final())


def test_results_do_not_go_into_a_training_run_nor_touch_those_below(runs, tmp_path):
    with pytest.raises(ConfigError, match="holds a training run"):
        final([runs["smin"]], runs["smin"], Final())
    above = tmp_path / "runs"
    shutil.copytree(runs["smin"], above / "smin")
    before = sorted((above / "smin").glob("events*"))
    final([above / "smin"], above, Final())
    assert before
    assert sorted((above / "smin").glob("events*")) == before


def test_two_runs_of_one_stream_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="one of each stream"):
        final([runs["ssin"], runs["ssin"]], tmp_path, Final())


def test_an_unknown_protocol_ends_before_any_extraction(runs, tmp_path):
    with pytest.raises(ValueError, match="mars-official"):
        final([runs["ssin"]], tmp_path, Final(protocol="mars"))


def test_the_fusion_of_two_runs_is_chosen_without_a_file_of_test(walkers, runs, results, tmp_path):
    training = training_part(walkers, tmp_path / "training")
    for stream, run in runs.items():
        shutil.copytree(run, tmp_path / stream)
        for path in (tmp_path / stream).glob("*.pt"):
            state = torch.load(path, weights_only=True)
            state["config"]["data"]["root"] = str(training)
            torch.save(state, path)
    found, mAP = fuse_held_out([tmp_path / "ssin", tmp_path / "smin"], Final())
    assert (mAP["ssin"], mAP["smin"]) == pytest.approx([held_out_mAP(runs[s]) for s in ("ssin", "smin")])
    chosen = results[1].fusion
    at_chosen = np.interp(chosen.weight, *chosen.curve_WS.T)
    assert mAP["fused"] >= at_chosen - 0.05, "of all normalisations the best, beside that of the default"
    assert found.normalisation != chosen.normalisation or found.weights == chosen.weights


def test_with_nobody_held_out_a_given_weight_fuses_all_the_same(walkers, tmp_path):
    for stream in ("ssin", "smin"):
        train(small_config(stream, walkers, tmp_path / stream, "data.held_out=0"))
    runs = [tmp_path / "ssin", tmp_path / "smin"]
    assert final(runs, tmp_path / "out", Final(weight=0.25)).fusion.weight == 0.25
    with pytest.raises(ConfigError, match=r"set final\.weight or final\.folds"):
        final(runs, tmp_path / "out", Final())


@pytest.fixture(scope="module")
def folded(walkers, tmp_path_factory):
    """A folder with a run of each stream on all people, and two of each that leave a fold out."""
    home = tmp_path_factory.mktemp("folded")
    for stream in ("ssin", "smin"):
        train(small_config(stream, walkers, home / stream, "data.held_out=0", "train.epochs=1"))
        for fold in (1, 2):
            left = [f"data.fold={fold}/2", "data.held_out=0", "data.test=false", "train.epochs=1"]
            train(small_config(stream, walkers, fold_folder(home / stream, fold), *left))
    return home


@pytest.mark.slow
def test_people_whom_a_run_left_out_choose_the_fusion(folded, walkers, tmp_path):
    found = final([folded / "ssin", folded / "smin"], tmp_path / "out", Final(folds=2))
    table = read_mars(walkers)
    pids = table.pids_N[table.train]
    seen_twice = [pid for pid in np.unique(pids) if len(np.unique(table.camids_N[table.train][pids == pid])) > 1]
    assert found.fusion.offer.identities == len(seen_twice), "everybody who can be queried has had a part in it"
    assert found.fusion.curve_WS.shape == (21, 2)
    assert found.fusion.offer.reason("x") in found.text().replace(found.offered.upper(), "x")


def test_calibrated_distances_need_people_who_did_not_train_and_keep_a_probability(runs, tmp_path):
    both = [runs["ssin"], runs["smin"]]
    given = final(both, tmp_path / "given", Final(normalisation="calibrated", weight=0.5))
    chosen = final(both, tmp_path / "chosen", Final(normalisation="calibrated"))
    assert chosen.fusion.offer is not None
    for out, found in ((tmp_path / "given", given), (tmp_path / "chosen", chosen)):
        saved = json.loads((out / "results.json").read_text())["fusion"]
        assert saved["odds"] == vars(found.fusion.odds)
        assert found.fusion.odds.slope >= 0
    factors = given.fusion.distance.complete.factors
    ranked = given.rankings[-1].distance_QG
    parts = [given.rankings[place].distance_QG for place in (0, 1)]
    known_QG = np.isfinite(parts[1])
    np.testing.assert_allclose((factors["ssin"] * parts[0] + factors["smin"] * parts[1])[known_QG], ranked[known_QG])


def test_calibrated_distances_with_nobody_held_out_are_refused(walkers, tmp_path):
    for stream in ("ssin", "smin"):
        train(small_config(stream, walkers, tmp_path / stream, "data.held_out=0", "train.epochs=1"))
    with pytest.raises(ConfigError, match="no identities were held out"):
        final([tmp_path / "ssin", tmp_path / "smin"], tmp_path / "out", Final(normalisation="calibrated", weight=0.5))


@pytest.mark.slow
def test_folds_that_do_not_belong_to_the_runs_are_refused(folded, tmp_path):
    home = shutil.copytree(folded, tmp_path / "home")
    runs = [home / "ssin", home / "smin"]
    shutil.copytree(home / "folds/1", home / "folds/3")
    with pytest.raises(ConfigError, match="folds/1/ssin: leaves out fold 1/2, wanted 1/3"):
        final(runs, tmp_path / "out", Final(folds=3))
    shutil.rmtree(home / "folds/2")
    with pytest.raises(FileNotFoundError, match="folds/2/ssin"):
        final(runs, tmp_path / "out", Final(folds=2))


def held_out_mAP(run: Path) -> float:
    return torch.load(run / "best.pt", weights_only=True)["best_mAP"]


def test_a_final_job_that_is_asked_to_stop_leaves_before_it_has_looked_at_test(runs, tmp_path):
    stop = StopFlag()
    stop.requested = True
    with pytest.raises(Stopped):
        final([runs["ssin"], runs["smin"]], tmp_path / "out", Final(), stop=stop)
    assert not list((tmp_path / "out").iterdir())


def test_the_pretrained_weights_that_training_began_with_may_be_gone(runs, tmp_path):
    run = shutil.copytree(runs["ssin"], tmp_path / "run")
    state = torch.load(run / "best.pt", weights_only=True)
    state["config"]["model"]["pretrained"] = "gone.pth"
    torch.save(state, run / "best.pt")
    assert final([run], tmp_path / "out", Final()) is not None


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        final([tmp_path], tmp_path / "out", Final())
    (tmp_path / "smin").mkdir()
    (tmp_path / "smin" / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"training has run, such as .*smin"):
        final([tmp_path], tmp_path / "out", Final())


def test_a_mean_over_no_query_is_null_and_not_a_bare_nan(walkers, tmp_path):
    """JSON knows no NaN; here every person stands before one camera, so that nobody is found again."""
    data = tmp_path / "data"
    shutil.copytree(walkers, data)
    path = data / "info" / "tracks_test_info.mat"
    table = scipy.io.loadmat(path)["track_test_info"]
    table[:, 3] = 1 + table[:, 2] % 2
    scipy.io.savemat(path, {"track_test_info": table})
    queries = path.with_name("query_IDX.mat")
    rows = scipy.io.loadmat(queries)["query_IDX"].ravel()
    _, first = np.unique(table[rows - 1, 2], return_index=True)  # as MARS has it, one of each identity and camera
    scipy.io.savemat(queries, {"query_IDX": rows[np.sort(first)][None]})
    run = tmp_path / "run"
    train(small_config("smin", data, run, "train.epochs=1"))
    found = final([run], tmp_path / "out", Final())
    saved = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert saved["results"][0]["mAP"] is None
    assert (saved["results"][0]["used"], saved["results"][0]["skipped"]) == (0, len(first))
    assert "-" in found.text().splitlines()[2]


def test_the_rankings_of_an_evaluation_can_be_compared_query_by_query(results, walkers):
    out, shown = results
    table = read_mars(walkers)
    judged = {stream: read_judged(f"{out}:{stream}") for stream in ("ssin", "smin", "fused")}
    for ranking in shown.rankings:
        found = judged[ranking.name]
        assert found.keys == table.keys_N[table.test[table.query]].tolist()
        np.testing.assert_array_equal(found.ap_Q, ranking.scores.ap_Q)
        np.testing.assert_array_equal(found.first_hit_Q, ranking.scores.first_hit_Q)
    assert f"{judged['fused'].ap_Q.size} queries" in compare(f"{out}:ssin", str(out))
    line = json.loads((out / "results.json").read_text())["results"][0]
    assert line["mAP_interval"][0] < line["mAP"] < line["mAP_interval"][1]


def test_a_mistyped_run_leaves_no_folder_of_results(runs, tmp_path):
    for wrong, error in (([tmp_path / "typo"], FileNotFoundError), ([runs["ssin"], runs["ssin"]], ConfigError)):
        with pytest.raises(error, match=r"typo: no readable checkpoint|wanted one of each stream"):
            final(wrong, tmp_path / "out", Final())
    assert not list(tmp_path.iterdir())


def test_the_normalisation_too_can_be_chosen_on_the_held_out_identities(runs, tmp_path):
    both = [runs["ssin"], runs["smin"]]
    found = final(both, tmp_path / "auto", Final(normalisation="auto"))
    chosen, _ = fuse_held_out(both, Final())
    assert (found.fusion.normalisation, found.fusion.weights) == (chosen.normalisation, chosen.weights)
    again = final(
        both, tmp_path / "named", Final(normalisation=chosen.normalisation, weight=pair_weight(chosen.weights))
    )
    assert again.lines() == found.lines()


def test_a_protocol_in_a_file_gives_its_own_name_to_every_line(runs, tmp_path):
    rules = {**vars(protocol("mars-standard")), "name": "mine"}
    (tmp_path / "rules.yaml").write_text("\n".join(f"{key}: {value}" for key, value in rules.items()))
    found = final([runs["smin"]], tmp_path / "final", Final(protocol=str(tmp_path / "rules.yaml")))
    assert {line["protocol"] for line in found.lines()} == {"mine"}
    assert "protocol mine" in found.text()


def test_a_reranked_result_stands_beside_the_plain_one_everywhere(runs, results, tmp_path):
    found = final([runs["ssin"], runs["smin"]], tmp_path, Final(rerank=True))
    saved = json.loads((tmp_path / "results.json").read_text())
    plain = [line for line in saved["results"] if line["stream"] != "reranked"]
    assert plain == results[1].lines()
    assert [line["stream"] for line in saved["results"]] == ["ssin", "smin", "fused", "reranked"] * 2
    assert saved["reranking"] == {"of": "fused", "k1": 20, "k2": 6, "share": 0.3}
    assert len(saved["cmc"]["reranked"]) == 50
    assert "neighbours of the test tracklets among each other (transductive)" in found.text()
    assert read_judged(f"{tmp_path}:reranked").ap_Q.tolist() == found.rankings[-1].scores.ap_Q.tolist()
    assert read_judged(str(tmp_path)).name.endswith(":fused")
    report = (tmp_path / "report.html").read_text()
    assert f"<strong>{title_of(found.offered)}: mAP" in report
    assert '<td class="name">reranked</td>' in report


@pytest.mark.parametrize(("name", "kind"), [("mars-official", "zscore"), ("torchreid", "concat")])
def test_reranking_goes_by_the_fused_distances_of_all_that_the_protocol_has(runs, tmp_path, name, kind):
    """Queries are gallery rows too, and one tracklet lacks skeletons; or queries stand apart. All are there once."""
    settings = Final(rerank=True, protocol=name, normalisation=kind, weight=0.4)
    found = final([runs["ssin"], runs["smin"]], tmp_path, settings)
    rows = np.union1d(found.query_rows, found.gallery_rows)
    assert len(rows) == len(found.gallery_rows) + (len(found.query_rows) if name == "torchreid" else 0)
    ssin, smin = (features.features_ND[rows - found.table.num_train] for features in found.test.features)
    valid_N = found.test.features[1].valid_N[rows - found.table.num_train]
    if kind == "concat":
        ssin = ssin / np.linalg.norm(ssin, axis=1, keepdims=True)
        smin = smin / np.maximum(np.linalg.norm(smin, axis=1, keepdims=True), 1e-9)
    assert valid_N.all() == (name == "torchreid")
    apart = squared_distances(ssin, ssin), squared_distances(smin, smin)
    among_NN = fused_pair(found.fusion.distance, *apart, valid_N, valid_N)
    np.fill_diagonal(among_NN, 0)
    places = np.searchsorted(rows, found.query_rows), np.searchsorted(rows, found.gallery_rows)
    again = rerank(lambda a, b: among_NN[a:b], *places, len(rows))
    np.testing.assert_allclose(found.rankings[-1].distance_QG, again, atol=1e-6)


def test_one_stream_alone_is_reranked_and_who_has_no_skeleton_stays_at_infinity(runs, tmp_path):
    found = final([runs["smin"]], tmp_path, Final(rerank=True))
    plain, again = found.rankings
    assert json.loads((tmp_path / "results.json").read_text())["reranking"]["of"] == "smin"
    assert np.isinf(plain.distance_QG).any()
    assert np.array_equal(np.isinf(again.distance_QG), np.isinf(plain.distance_QG))


def test_too_little_memory_for_reranking_is_told_before_anything_is_extracted(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("sptskm.final.extract", lambda *_: pytest.fail("extracted"))
    with pytest.raises(ValueError, match=r"re-ranking \d+ tracklets needs 0\.\d+ GiB beside .* allowed are 1e-06"):
        final([runs["smin"]], tmp_path, Final(rerank=True, rerank_gigabytes=1e-6))


def test_auto_with_reranking_leaves_out_ranks_which_are_no_distance_of_a_pair(runs, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(
        "sptskm.evaluation.choosing.NormalisedDistances",
        lambda streams, kind, slopes: tried.append(kind) or NormalisedDistances(streams, kind, slopes),
    )
    final([runs["ssin"], runs["smin"]], tmp_path, Final(rerank=True, normalisation="auto"))
    assert tried == ["zscore", "minmax", "concat"]
