import numpy as np
import pytest

from sptskm.evaluation import PROTOCOLS, protocol, select

# Rows 0..8: two queries (1, 4), junk (0), distractors (2, 8), lengths around the limits.
PIDS = np.array([-1, 5, 0, 5, 7, 7, 7, 5, 0])
LENGTHS = np.array([99, 30, 31, 29, 31, 30, 31, 40, 3])
QUERY = np.array([4, 1])


@pytest.mark.parametrize(
    ("name", "query", "gallery"),
    [
        ("mars-official", [4, 1], [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("mars-standard", [4, 1], [1, 2, 3, 4, 5, 6, 7, 8]),
        ("torchreid", [4, 1], [2, 3, 5, 6, 7, 8]),
        ("sptskm-ssin", [4, 1], [2, 5, 6, 7]),
        ("sptskm-smin", [4], [2, 6, 7]),
        ("any-camera", [4, 1], [2, 3, 5, 6, 7, 8]),
    ],
)
def test_a_protocol_selects_its_rows_and_keeps_the_order_of_the_queries(name, query, gallery):
    query_rows, gallery_rows = select(protocol(name), PIDS, LENGTHS, QUERY)
    assert query_rows.tolist() == query
    assert gallery_rows.tolist() == gallery


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "queries", "gallery"),
    [
        ("mars-official", 1980, 12180),
        ("mars-standard", 1980, 11310),
        ("torchreid", 1980, 9330),
        ("sptskm-ssin", 1125, 5103),
        ("sptskm-smin", 1052, 4819),
    ],
)
def test_the_sizes_on_mars_are_those_of_record(mars, name, queries, gallery):
    rows = select(protocol(name), mars.pids, mars.lengths, mars.query)
    assert [len(side) for side in rows] == [queries, gallery]


def test_every_protocol_is_found_under_its_own_name():
    assert len(PROTOCOLS) == 9
    assert all(protocol(name).name == name for name in PROTOCOLS)


def test_an_unknown_name_is_answered_with_the_legal_ones():
    with pytest.raises(ValueError, match=r"'market'; legal names are mars-official, mars-standard"):
        protocol("market")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 9], "query row 9 is outside the test table, rows 0 to 8"),
        ([-1], "query row -1 is outside"),
        ([1, 1], "repeat"),
        ([1.0], "1-D integer"),
    ],
)
def test_query_rows_that_name_no_tracklet_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        select(protocol("torchreid"), PIDS, LENGTHS, np.array(rows))


def test_a_table_with_missing_lengths_is_refused():
    with pytest.raises(ValueError, match="equally long"):
        select(protocol("torchreid"), PIDS, LENGTHS[1:], QUERY)
