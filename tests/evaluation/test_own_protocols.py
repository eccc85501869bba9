"""Protocols of one's own: a YAML file that states every rule, used by its path, named by what stands in it."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from sptskm.cli import main
from sptskm.common.reading import read_yaml
from sptskm.config import ConfigError
from sptskm.evaluation import PROTOCOLS, Rows, evaluate, protocol, select

RULES = {
    "name": "mine",
    "keep_queries": False,
    "keep_junk": True,
    "min_length": 4,
    "ignore_same_camera": True,
    "ap": "precision",
    "clothes": "any",
    "average": "all",
}


def written(folder: Path, **changes: object) -> str:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (RULES | changes).items() if value is not None}))
    return str(path)


def test_a_file_states_a_protocol_and_its_name(tmp_path):
    rules = protocol(written(tmp_path))
    assert vars(rules) == RULES
    queries, gallery = select(rules, np.array([1, 1, -1, 2]), np.array([4, 4, 4, 3]), np.array([0]))
    assert (queries.tolist(), gallery.tolist()) == ([0], [1, 2])


def test_scores_carry_the_name_in_the_file_and_equal_those_of_the_same_rules_by_name(tmp_path):
    rng = np.random.default_rng(3)
    query, gallery = Rows(np.arange(6), np.zeros(6, int)), Rows(rng.integers(-1, 6, 40), rng.integers(0, 3, 40))
    distance = rng.random((6, 40))
    for known in PROTOCOLS.values():
        if known.clothes == "any":
            own = evaluate(distance, query, gallery, protocol(written(tmp_path, **vars(known) | {"name": "mine"})))
            by_name = evaluate(distance, query, gallery, known)
            assert (own.protocol.name, by_name.protocol) == ("mine", known)
            np.testing.assert_array_equal(own.ap_Q, by_name.ap_Q)


def test_averaging_over_all_counts_a_query_without_a_positive_as_lost(tmp_path):
    query, gallery = Rows([1, 9, 1, 8], [0, 0, 0, 0]), Rows([1, 2], [1, 1])
    distance = np.array([[0.0, 1], [0, 1], [1, 0], [0, 1]])
    found = evaluate(distance, query, gallery, protocol(written(tmp_path, average="found")))
    everyone = evaluate(distance, query, gallery, protocol(written(tmp_path, average="all")))
    assert (found.num_queries, found.num_skipped, found.mAP, found.rank(1)) == (2, 2, 0.75, 0.5)
    assert (everyone.num_queries, everyone.num_skipped, everyone.mAP, everyone.rank(1)) == (4, 0, 0.375, 0.25)
    assert everyone.ap_Q.tolist() == [1, 0, 0.5, 0]
    assert everyone.cmc[-1] == 0.5


@pytest.mark.parametrize("key", RULES)
def test_what_a_file_leaves_out_is_asked_for(tmp_path, key):
    with pytest.raises(ConfigError, match=rf"rules\.yaml: lacks {key}; a protocol states every rule"):
        protocol(written(tmp_path, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clothing": "any"}, "unknown key clothing; did you mean clothes"),
        ({"ap": "trapeze"}, "ap is 'trapeze', wanted one of trapezoid, precision"),
        ({"clothes": "others"}, "clothes is 'others', wanted one of any, other, same"),
        ({"average": "some"}, "average is 'some', wanted one of found, all"),
        ({"keep_junk": "no"}, "keep_junk is 'no', wanted bool"),
        ({"min_length": -1}, "min_length is -1, wanted at least 0"),
        ({"keep_queries": True, "ignore_same_camera": False}, "keep_queries is true and ignore_same_camera false, so"),
        ({"name": " "}, "name is ' ', wanted a name that no other protocol has"),
        ({"name": "torchreid"}, "name is 'torchreid', wanted a name that no other"),
    ],
)
def test_rules_that_mean_nothing_are_refused_with_their_file(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=rf"rules\.yaml: {message}"):
        protocol(written(tmp_path, **changes))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        protocol("nowhere.yaml")


def test_a_command_reads_the_file_of_a_protocol_once(trained, walkers, tmp_path, monkeypatch):
    path, reads = written(tmp_path), []

    def counted(file):
        reads.append(str(file))
        return read_yaml(file)

    monkeypatch.setattr("sptskm.evaluation.protocols.read_yaml", counted)
    runs, out = [str(trained["ssin"]), str(trained["smin"])], tmp_path / "final"
    words = ["evaluate", *runs, "--out", str(out), "--protocol", path, "--set", "rerank=true"]
    commands = {
        "evaluate": words,
        "explain": ["evaluate", "--explain", str(walkers), "--protocol", path],
        "score": ["score", str(out / "features-smin.npz"), "--data", str(walkers), "--protocol", path],
    }
    for name, command in commands.items():
        reads.clear()
        assert main(command) == 0
        assert reads == [path], name
