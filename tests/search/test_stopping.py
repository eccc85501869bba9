"""Who goes on at a rung, by records alone."""

from dataclasses import replace

from sptskm.search import Score, Search, Trial, goes_on
from sptskm.search.stopping import bracket, rungs

SEARCH = Search(epochs=20, grace_epochs=2, reduction=3)


def trial(number: int, *mAPs: float) -> Trial:
    scores = [Score(epoch, epoch, mAP, mAP, 0.0, 1.0) for epoch, mAP in enumerate(mAPs, 1)]
    return Trial("smin", number, {}, 1, "", scores)


def test_rungs_grow_by_the_reduction_and_lie_before_the_end():
    assert rungs(SEARCH) == [2, 6, 18]


def test_the_first_to_come_goes_on():
    assert goes_on(trial(0, 0.1, 0.1), [], SEARCH)
    assert goes_on(trial(0, 0.1, 0.1), [trial(0, 0.1, 0.1), trial(1, 0.9)], SEARCH), "the other is not there yet"


def test_between_rungs_nobody_is_ended():
    others = [trial(number, *[0.9] * 5) for number in range(1, 4)]
    assert goes_on(trial(0, 0.1), others, SEARCH)
    assert goes_on(trial(0, 0.1, 0.1, 0.1), others, SEARCH)


def test_at_a_rung_the_best_third_goes_on():
    others = [trial(number, 0.0, number / 10) for number in range(1, 9)]
    assert not goes_on(trial(0, 0.9, 0.55), others, SEARCH), "the score at the rung counts, not one before"
    assert goes_on(trial(0, 0.0, 0.65), others, SEARCH)


def test_a_later_rung_looks_at_those_who_have_come_that_far():
    far = trial(1, *[0.5] * 6)
    near = [trial(number, 0.9, 0.9) for number in range(2, 9)]
    assert goes_on(trial(0, *[0.6] * 6), [far, *near], SEARCH)
    assert not goes_on(trial(0, *[0.4] * 6), [far, *near], SEARCH)


def test_scores_that_are_not_taken_at_a_rung_are_judged_at_the_next_one_after_it():
    sparse = Trial("smin", 0, {}, 1, "", [Score(epoch, epoch, 0.1, 0.1, 0.0, 1.0) for epoch in (4, 8)])
    others = [trial(number, *[0.9] * 8) for number in range(1, 4)]
    assert not goes_on(sparse, others, SEARCH)


def test_the_median_of_the_others_must_be_reached_after_the_grace():
    rule = replace(SEARCH, scheduler="median")
    others = [trial(number, *[number / 10] * 4) for number in range(1, 6)]
    assert goes_on(trial(0, 0.0), others, rule), "within the grace"
    assert not goes_on(trial(0, 0.0, 0.1, 0.29), others, rule)
    assert goes_on(trial(0, 0.0, 0.3, 0.0), others, rule), "the best score counts"
    assert goes_on(trial(0, 0.0, 0.0, 0.0), others[:2], rule), "too few to have a median"


def test_the_other_stream_and_no_rule_end_nobody():
    others = [replace(trial(number, *[0.9] * 8), stream="ssin") for number in range(1, 5)]
    assert goes_on(trial(0, 0.1, 0.1), others, SEARCH)
    better = [trial(number, *[0.9] * 8) for number in range(1, 5)]
    assert goes_on(trial(0, 0.1, 0.1), better, replace(SEARCH, scheduler="none"))


def test_hyperband_deals_out_brackets_as_the_paper_sizes_them_and_evenly_over_the_numbers():
    rule = replace(SEARCH, scheduler="hyperband")
    dealt = [bracket(number, rule) for number in range(49)]
    assert [dealt.count(own) for own in range(4)] == [27, 12, 6, 4]
    assert [dealt[:10].count(own) for own in range(4)] == [6, 2, 1, 1]


def test_hyperband_spares_the_first_rungs_of_a_bracket_and_compares_within_it():
    rule = replace(SEARCH, scheduler="hyperband")
    by_bracket = {own: [number for number in range(49) if bracket(number, rule) == own] for own in range(4)}
    first, others = by_bracket[1][0], by_bracket[1][1:7]
    worst = trial(first, 0.1, 0.1)
    assert goes_on(worst, [trial(number, 0.9, 0.9) for number in others], rule), "spared at 2"
    worst = trial(first, *[0.1] * 6)
    assert not goes_on(worst, [trial(number, *[0.9] * 6) for number in others], rule), "judged at 6"
    strangers = [trial(number, *[0.9] * 6) for number in by_bracket[0][:6]]
    assert goes_on(worst, strangers, rule), "those of another bracket are no rivals"
