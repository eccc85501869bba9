"""Search files: what they may say, and what is drawn from them."""

from pathlib import Path

import pytest
from helpers.launching import ROOT

from sptskm.config import STREAMS, ConfigError
from sptskm.configfile import nest
from sptskm.tuning import (
    Distribution,
    check_search,
    configured,
    encoded,
    grid_points,
    load_search,
    present,
    settings_of,
)

SPACE = """
trials: 200
epochs: 12
seed: 3
smin:
  optim.lr: {loguniform: [1e-4, 1.0e-1]}
  loss.triplet: {uniform: [0, 1]}
  sampling.tracklets: {integer: [2, 4]}
  loss.margin: {quantised: [0.1, 0.5, 0.2]}
  optim.weight_decay: {loguniform: [1.0e-6, 1.0e-3], when: {optim.algorithm: sgd}}
  optim.algorithm: {choice: [adam, sgd]}
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        (tmp_path / "search.yaml").write_text(text)
        return tmp_path / "search.yaml"

    return write


def test_what_tune_has_drawn_is_read_in_the_types_of_the_configuration(write):
    space = load_search(write(SPACE))["smin"].space
    drawn = {"optim.lr": 1, "loss.triplet": 0.5, "sampling.tracklets": 3.0, "loss.margin": 0.3}
    found = settings_of({**drawn, "optim.weight_decay": 1e-5, "optim.algorithm": "adam"}, space)
    assert found == {**drawn, "optim.algorithm": "adam"}, "the decay is for sgd alone"
    assert (type(found["optim.lr"]), type(found["sampling.tracklets"])) == (float, int)
    assert settings_of({**drawn, "optim.weight_decay": 1e-5, "optim.algorithm": "sgd"}, space)["optim.weight_decay"]


def test_a_list_among_the_values_of_a_choice_is_one_value():
    space = {"model.depths": Distribution("choice", ([1, 1], [2, 2]))}
    assert settings_of({"model.depths": encoded([2, 2])}, space) == {"model.depths": [2, 2]}
    assert encoded("sgd") == "sgd"


def test_the_settings_of_a_configuration_are_told_even_where_they_could_not_be_drawn(write):
    search = load_search(write(SPACE))["smin"]
    config = configured(STREAMS["smin"].defaults, {"optim.lr": 3.0, "loss.margin": 0.25})
    first = present(config, search.space)
    assert first["optim.lr"] == 3.0
    assert configured(config, first) == config
    assert [name for name in first if not search.space[name].holds(first[name])] == ["optim.lr"]


def test_a_section_may_have_rules_of_its_own(write):
    text = (
        "epochs: 60\nssin: {optim.lr: {uniform: [0, 1]}}\nsmin: {epochs: 90, workers: 1, optim.lr: {uniform: [0, 1]}}"
    )
    found = load_search(write(text + "\ngrace_epochs: 6\nworkers: 2"))
    assert [(found[s].epochs, found[s].grace_epochs, found[s].workers) for s in ("ssin", "smin")] == [
        (60, 6, 2),
        (90, 6, 1),
    ]


def test_a_grid_is_every_combination_once(write):
    text = """
method: grid
ssin:
  optim.algorithm: {choice: [adam, sgd]}
  optim.weight_decay: {choice: [1e-4, 1e-3], when: {optim.algorithm: [sgd]}}
  sampling.tracklets: {choice: [2, 4]}
"""
    search = load_search(write(text))["ssin"]
    check_search(Path("s.yaml"), search, STREAMS["ssin"].defaults)
    drawn = list(grid_points(search.space))
    assert len(drawn) == 2 + 4
    assert {"optim.algorithm": "adam", "sampling.tracklets": 2} in drawn


def test_the_members_of_a_quantised_range_are_steps_from_its_lower_end():
    assert Distribution("quantised", (0.1, 0.55, 0.2)).members == [0.1, 0.3, 0.5]
    assert Distribution("quantised", (0.1, 0.55, 0.2)).nearest(0.52) == 0.5
    assert Distribution("integer", (1.0, 3.0)).nearest(2.6) == 3
    assert Distribution("uniform", (1.0, 3.0)).nearest(7) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trials: 3", "nothing varies, wanted a section ssin or smin"),
        ("trails: 3\nsmin: {optim.lr: {uniform: [0, 1]}}", "unknown key trails; did you mean trials?"),
        ("trials: 0\nsmin: {optim.lr: {uniform: [0, 1]}}", "trials is 0, wanted at least 1"),
        ("seed: -1\nsmin: {optim.lr: {uniform: [0, 1]}}", "seed is -1, wanted at least 0"),
        (f"trials: {10**20}\nsmin: {{optim.lr: {{uniform: [0, 1]}}}}", "wanted at most 1000000000"),
        ("smin: {optim.lr: {choice: []}}", "smin.optim.lr: choice is empty, wanted some values"),
        ("smin: {sampling.tracklets: {integer: [1, .inf]}}", "integer is [1, inf], wanted [low, high]"),
        ("epochs: 3\nsmin: {optim.lr: {uniform: [0, 1]}}", "wanted each no more than the next"),
        ("smin: {optim.lr: 3}", "smin.optim.lr is 3, wanted one of choice: [...], uniform: [...]"),
        ("smin: {optim.lr: {normal: [0, 1]}}", "wanted one of choice"),
        ("smin: {optim.lr: {uniform: [1, 0]}}", "uniform is [1, 0], wanted [low, high]"),
        ("smin: {optim.lr: {loguniform: [0, 1]}}", "loguniform begins at 0, wanted more than 0"),
        ("smin: {optim.lr: {quantised: [0, 1]}}", "wanted [low, high, step]"),
        ("smin: {sampling.tracklets: {integer: [1, 2.5]}}", "wanted whole numbers"),
        ("smin: {epochs: 50}", "nothing of smin varies"),
        ("smin: {method: grid, optim.lr: {uniform: [0, 1]}}", "smin.method is for all streams, wanted method outside"),
        ("smin: {gpus_per_worker: 2, optim.lr: {uniform: [0, 1]}}", "gpus_per_worker is 2 and workers 1, wanted a GPU"),
        (
            "workers: 2\ngpus_per_worker: 0.5\nsmin: {optim.lr: {uniform: [0, 1]}}",
            "or a part of one for a single worker",
        ),
        (
            "scheduler: pbt\nmethod: grid\nsmin: {optim.lr: {choice: [1]}}",
            "scheduler is pbt and method grid, wanted random",
        ),
        ("scheduler: ash\nsmin: {optim.lr: {uniform: [0, 1]}}", "scheduler is 'ash', wanted one of asha"),
    ],
)
def test_what_a_file_gets_wrong_is_one_sentence_with_the_file(write, text, sentence):
    with pytest.raises(ConfigError) as refused:
        load_search(write(text))
    assert str(refused.value).startswith(str(write(text)))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("{optim.lrr: {uniform: [0, 1]}}", "unknown key optim.lrr; did you mean lr?"),
        ("{optim.lr: {uniform: [0, 1]}}", "optim.lr is 0.0, wanted more than 0"),
        ("{optim.algorithm: {choice: [adam, lion]}}", "optim.algorithm is 'lion', wanted one of adam, "),
        ("{train.epochs: {integer: [1, 2]}}", "smin.train.epochs belongs to the search as a whole"),
        ("{optim.lr: {uniform: [1, 2], when: {loss.margin: 1}}}", "depends on loss.margin, which does not vary"),
        (
            "{optim.lr: {uniform: [1, 2], when: {loss.margin: 1}}, loss.margin: {choice: [1], when: {optim.lr: 1}}}",
            "optim.lr, loss.margin depend on one another",
        ),
    ],
)
def test_a_space_is_checked_against_the_configuration(write, space, sentence):
    search = load_search(write(f"smin: {space}"))["smin"]
    with pytest.raises(ConfigError) as refused:
        check_search(Path("s.yaml"), search, STREAMS["smin"].defaults)
    assert str(refused.value).startswith("s.yaml: ")
    assert sentence in str(refused.value)


def test_a_grid_of_ranges_and_a_population_with_other_networks_are_refused(write):
    grid = load_search(write("method: grid\nsmin: {optim.lr: {uniform: [1, 2]}}"))["smin"]
    with pytest.raises(ConfigError, match=r"smin\.optim\.lr is no choice"):
        check_search(Path("s.yaml"), grid, STREAMS["smin"].defaults)
    population = load_search(write("scheduler: pbt\nsmin: {model.width: {choice: [16, 32]}}"))["smin"]
    with pytest.raises(ConfigError, match=r"smin\.model\.width cannot change while a run goes on.*wanted loss\."):
        check_search(Path("s.yaml"), population, STREAMS["smin"].defaults)


def test_names_with_dots_become_sections():
    assert nest({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_the_shipped_searches_fit_the_shipped_configurations():
    from sptskm.configfile import load

    files = sorted((ROOT / "configs" / "search").glob("*.yaml"))
    for file in files:
        for stream, search in load_search(file).items():
            folder = ROOT / "configs" / (file.stem if (ROOT / "configs" / file.stem).is_dir() else "mars")
            check_search(file, search, load(folder / f"{stream}.yaml"))


def test_a_range_beyond_all_numbers_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text(f"smin:\n  optim.lr: {{uniform: [1.0e-3, {'9' * 400}]}}\n")
    with pytest.raises(ConfigError, match=r"optim\.lr: uniform is "):
        load_search(tmp_path / "s.yaml")
