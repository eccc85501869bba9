"""What a protocol counts, from labels alone."""

import numpy as np
import pytest

from sptskm.cli import main
from sptskm.evaluation import PROTOCOLS, Rows, evaluate, explain_protocol, protocol

# 0: query, 1: in its camera, 2: in another; 3: query, alone; 4: query, 5: in its camera; 6: junk; 7: distractor
PIDS = np.array([1, 1, 1, 2, 3, 3, -1, 0])
CAMERAS = np.array([1, 1, 2, 1, 2, 2, 2, 1])
LENGTHS = np.full(8, 9)
QUERY = np.array([0, 3, 4])


def test_a_skipped_query_has_a_reason():
    found = explain_protocol(protocol("torchreid"), Rows(PIDS, CAMERAS), LENGTHS, QUERY)
    assert found.positives_Q.tolist() == [1, 0, 0]
    assert found.skipped == {"its identity not in the gallery": 1, "its identity only in its own camera": 1}
    official = explain_protocol(protocol("mars-official"), Rows(PIDS, CAMERAS), LENGTHS, QUERY)
    assert official.skipped == found.skipped, "the query itself is nobody else"
    assert not explain_protocol(protocol("sptskm-smin"), Rows(PIDS, CAMERAS), LENGTHS + 99, QUERY[[0, 2]]).skipped


def test_clothes_are_a_reason_where_the_protocol_asks_for_them():
    for worn, name, why in (
        ([5, 5, 5], "ccvid-clothes-changing", "its identity only in the same clothes"),
        ([5, 5, 6], "ccvid-same-clothes", "its identity only in other clothes"),
        ([5, 5, -1], "ccvid-clothes-changing", "clothes unknown"),
        ([-1, 5, 6], "ccvid-same-clothes", "clothes unknown"),
    ):
        rows = Rows([1, 1, 1], [1, 1, 2], worn)
        assert explain_protocol(protocol(name), rows, LENGTHS[:3], QUERY[:1]).skipped == {why: 1}
    with pytest.raises(ValueError, match="has no clothes labels"):
        explain_protocol(protocol("ccvid-same-clothes"), Rows([1], [1]), LENGTHS[:1], QUERY[:1])


def test_it_counts_as_the_evaluation_does(name):
    rng = np.random.default_rng(4)
    rows = Rows(rng.integers(-1, 12, 90), rng.integers(1, 4, 90))
    query = rng.permutation(np.flatnonzero(rows.pids > 0))[:30]
    found = explain_protocol(protocol(name), rows, rng.integers(20, 60, 90), query)
    scores = evaluate(rng.random((len(found.query), len(found.gallery))), found.query, found.gallery, PROTOCOLS[name])
    assert sum(found.skipped.values()) == scores.num_skipped
    assert ((found.positives_Q > 0) == scores.counted_Q).all()
    assert found.too_short == 30 - len(found.query)
    counts = {what.strip(): count for what, count in found.counts()[1]}
    assert counts["gallery rows"] == scores.num_gallery
    assert counts["averaged over"] == scores.num_queries
    by_camera = np.array([row[1:3] for row in found.cameras()[1]])
    assert by_camera.sum(axis=0).tolist() == [len(found.query), scores.num_skipped]


def test_junk_as_a_query_is_said():
    assert explain_protocol(protocol("torchreid"), Rows([-1, 1], [1, 2]), LENGTHS[:2], np.array([0])).skipped == {
        "the query is junk itself": 1
    }


@pytest.mark.shared
def test_on_the_labels_of_mars_the_counts_are_those_of_record(mars):
    rows = Rows(mars.pids, mars.camids)
    official = explain_protocol(protocol("mars-official"), rows, mars.lengths, mars.query)
    counts = dict(official.counts()[1])
    assert (counts["queries"], counts["gallery rows"], counts["skipped"]) == (1980, 12180, 0)
    assert (counts["  junk, never ranked"], counts["  distractors"]) == (870, 3248)
    assert (counts["positives per query, mean"], counts["positives per query, most"]) == ("11.02", "207")
    skipped = explain_protocol(protocol("torchreid"), rows, mars.lengths, mars.query).skipped
    assert sum(skipped.values()) == 140
    assert set(skipped) == {"its identity not in the gallery", "its identity only in its own camera"}


def test_the_command_says_it_of_a_data_set_without_any_run(walkers, tmp_path, capsys):
    assert main(["evaluate", "--explain", str(walkers), "--protocol", "torchreid"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("torchreid")
    assert "positives per query, median" in said
    assert main(["evaluate", "--explain", str(walkers), "--out", str(tmp_path)]) == 2
    assert main(["evaluate", "--out", str(tmp_path)]) == 2
    assert "wants runs and --out, or --explain with a data set" in capsys.readouterr().err
