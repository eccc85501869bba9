"""What a table of results says of its protocol, and which rows its pictures show."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sptskm.config import Final
from sptskm.evaluation import PROTOCOLS, Fusion, Part, Rows
from sptskm.evaluation.results import Ranking, Results
from sptskm.report.selection import first_results

Make = Callable[..., Results]


def made(protocol: str, has_clothes: bool = True) -> Results:
    """One query; gallery of its camera, of its clothes elsewhere, of others, of another person, of junk."""
    query = Rows([1], [1], [5])
    gallery = Rows([1, 1, 1, 2, -1], [1, 2, 2, 2, 2], [6, 5, 6, 5, 5])
    table: Any = SimpleNamespace(has_clothes=has_clothes, test=np.arange(5))
    return Results(
        table=table,
        test=Part(np.array([0]), np.arange(5), query, gallery, PROTOCOLS[protocol], []),
        rankings=[],
        fusion=None,
        configs=[],
        settings=Final(),
        provenance={},
    )


@pytest.mark.parametrize(
    ("protocol", "left_out"),
    [
        ("mars-official", "AP by the trapezoid rule, same camera ignored"),
        ("sptskm-smin", "AP by mean precision, only tracklets of 31 frames or more, cameras not looked at"),
        ("ccvid-general", "AP by mean precision, same camera ignored"),
        ("ccvid-clothes-changing", "AP by mean precision, same camera ignored, same clothes ignored"),
        ("ccvid-same-clothes", "AP by mean precision, same camera ignored, other clothes ignored"),
    ],
)
def test_a_protocol_is_told_in_a_sentence(protocol: str, left_out: str) -> None:
    sentence = made(protocol).caption()
    assert sentence == f"protocol {protocol}: gallery of 5 tracklets (1 junk, 0 distractors), {left_out}"


@pytest.mark.parametrize("changed", [False, True])
def test_weights_that_pairs_in_other_clothes_have_chosen_are_told_to_be_so(changed: bool) -> None:
    how = {"curve_WS": np.zeros((1, 2)), "changed_clothes": changed}
    results = replace(made("mars-official"), fusion=Fusion({"ssin": 0.7, "smin": 0.3}, "zscore", **how))  # type: ignore[arg-type]
    end = "chosen on identities held out of training" + changed * ", by pairs in other clothes"
    assert results.caption().splitlines()[1] == f"fusion: zscore, weight of SMIN 0.30, {end}"


def test_queries_in_changed_clothes_are_a_part_of_their_own_unless_the_protocol_asks_for_clothes() -> None:
    for name, rules in PROTOCOLS.items():
        parts = set(made(name).subsets)
        assert parts == ({"all", "clothes changed"} if rules.clothes == "any" else {"all"})
    assert set(made("mars-official", has_clothes=False).subsets) == {"all"}


@pytest.mark.parametrize(
    ("protocol", "shown"),
    [
        ("mars-official", [3, 2, 1]),
        ("sptskm-smin", [3, 2, 1, 0]),
        ("ccvid-clothes-changing", [3, 2]),
        ("ccvid-same-clothes", [3, 1]),
    ],
)
def test_pictures_show_the_rows_that_are_ranked(protocol: str, shown: list[int]) -> None:
    ranking = Ranking("ssin", np.array([[5.0, 4.0, 3.0, 2.0, 1.0]]), None)  # type: ignore[arg-type]
    results = made(protocol)
    object.__setattr__(results, "rankings", [ranking])
    assert [found.row for found in first_results(results, ranking, 0) if found.rank] == shown


def test_what_is_ranked_has_a_hash_that_changes_with_it_and_not_with_the_training_part(make: Make) -> None:
    results = make()
    table = results.table
    training = make(pids_N=np.where(np.arange(len(table)) < table.num_train, table.pids_N + 100, table.pids_N))
    assert training.test_data == results.test_data
    assert make(camids_N=table.camids_N + 1).test_data != results.test_data
    assert make(settings=Final("torchreid")).test_data != results.test_data
