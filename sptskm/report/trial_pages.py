"""Results and cost of a hyper-parameter search: a table, TensorBoard's HParams and pages of its own."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sptskm.common.console import table
from sptskm.evaluation.results import title_of
from sptskm.report.colours import SOFT, colour_of, hexadecimal
from sptskm.report.style import new_figure, pixels
from sptskm.report.tensorboard import Board
from sptskm.tuning import Search, Trial, rank_trials

SHOWN = 5  # trials of each stream in the table
PARTS = 3  # into which the range of a number is cut to see what it explains
METRIC = "validation/best mAP"  # as the trainer logs it beside every score: HParams shows the last point of a tag
MINUTES = 60.0


def text(trials: Sequence[Trial], found: Mapping[str, Search]) -> str:
    """Return a table of the best trials of each stream, with their cost and the time saved by ending trials early."""
    parts = []
    for stream, search in found.items():
        own = [trial for trial in trials if trial.stream == stream]
        if not own:
            continue
        header = [stream, "mAP", "rank-1", "epoch", "trained", "rank min", "end", "settings"]
        rows = [_row(trial) for trial in rank_trials(trials, stream)[:SHOWN]]
        parts += [
            table(header, rows),
            _cost(own, search.epochs),
            *_gain(own, search),
            *_failures(own),
            "",
        ]
    return "\n".join(parts).rstrip()


def _row(trial: Trial) -> list[object]:
    best = trial.best
    assert best is not None
    settings = " ".join(f"{name}={_short(value)}" for name, value in trial.settings.items())
    scores = [f"{100 * best.mAP:.1f}", f"{100 * best.rank1:.1f}", best.epoch, trial.epochs]
    return [trial.name, *scores, f"{MINUTES * trial.rank_hours:.1f}", trial.end or "interrupted", settings]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cost(own: Sequence[Trial], epochs: int) -> str:
    spent = sum(trial.rank_hours for trial in own)
    full = sum(trial.rank_hours * epochs / trial.epochs for trial in own if trial.epochs)
    ends = {end: sum(trial.end == end for trial in own) for end in ("finished", "ended early", "failed")}
    told = ", ".join(f"{count} {end}" for end, count in ends.items() if count)
    saved = f", {1 - spent / full:.0%} less than all of them in full" if full > spent else ""
    return f"{len(own)} trials ({told}): {MINUTES * spent:.1f} rank minutes{saved}"


def _gain(own: Sequence[Trial], search: Search) -> list[str]:
    """Return a line that compares the best trial with the unchanged configuration, if that was trained to the end."""
    first = next((trial for trial in own if trial.number == 0 and trial.epochs == search.epochs), None)
    best = rank_trials(own, search.stream)[:1]
    if search.method == "grid" or search.scheduler == "pbt" or first is None or first.best is None:
        return []
    assert best[0].best is not None
    return [
        f"as configured ({first.name}) {100 * first.best.mAP:.1f}, found ({best[0].name}) {100 * best[0].best.mAP:.1f}"
    ]


def _failures(own: Sequence[Trial]) -> list[str]:
    return [f"{trial.name} failed: {trial.reason}" for trial in own if trial.end == "failed"]


def importance(trials: Sequence[Trial], stream: str) -> dict[str, float]:
    """Return the share (0 to 1) of the scores' variance that each setting explains alone (squared correlation ratio).

    Numbers are divided into thirds by rank. It does not measure interactions, and is unreliable below some dozens of
    trials.
    """
    own = rank_trials(trials, stream)
    scores_N = np.array([trial.best.mAP for trial in own if trial.best])
    total = float(((scores_N - scores_N.mean()) ** 2).sum()) if len(own) else 0.0
    names = sorted({name for trial in own for name in trial.settings})
    if total == 0:
        return dict.fromkeys(names, 0.0)
    found = {}
    for name in names:
        groups_N = np.array(_groups([trial.settings.get(name) for trial in own]))
        means = [(scores_N[groups_N == group].mean(), int((groups_N == group).sum())) for group in set(groups_N)]
        found[name] = sum(count * (mean - scores_N.mean()) ** 2 for mean, count in means) / total
    return found


def _groups(values: Sequence[Any]) -> list[str]:
    """Group equal values; divide many different numbers into thirds."""
    numbers = [value for value in values if isinstance(value, float | int) and not isinstance(value, bool)]
    if len(set(numbers)) <= PARTS:
        return [str(value) for value in values]
    edges = np.quantile(numbers, np.arange(1, PARTS) / PARTS)
    return [str(np.searchsorted(edges, value)) if value is not None else "none" for value in values]


def begin_page(trial: Trial) -> None:
    """Write a trial to TensorBoard's HParams before its first score, so that a trial ended early is listed too."""
    board = Board(Path(trial.folder), first_step=None)  # it may be a trial that goes on
    board.hyperparameters(trial.settings)
    board.close()


def write_page(trials: Sequence[Trial], found: Mapping[str, Search], folder: Path) -> None:
    """Write the pages of a search in `folder`, and of each stream below it.

    A page holds the columns of HParams; that of the search also the table, those of the streams also progress and
    importance. Earlier pages are replaced, also in an open TensorBoard.
    """
    board = _new(folder)
    board.experiment({name: value for search in found.values() for name, value in _examples(search).items()}, [METRIC])
    board.text("search", f"```\n{text(trials, found)}\n```")
    board.close()
    for stream, search in found.items():
        board = _new(folder / stream)
        # parallel coordinates leave out trials that lack a column: `--logdir FOLDER/STREAM` shows all of one stream
        board.experiment(_examples(search), [METRIC])
        _progress(board, [trial for trial in trials if trial.stream == stream])
        board.picture("search/importance", pixels(partial(importance_bars, importance(trials, stream), stream)), 0)
        board.picture("search/scores by epoch", pixels(partial(score_curves, trials, stream)), 0)
        board.close()


def _new(folder: Path) -> Board:
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return Board(folder)


def _examples(search: Search) -> dict[str, Any]:
    """Return one value of each setting, from which HParams takes its type."""
    return {name: draw.values[0] for name, draw in search.space.items()}


def _progress(board: Board, own: Sequence[Trial]) -> None:
    """Write the best score so far and the cost, one point at the end of each trial."""
    best, spent = 0.0, 0.0
    for count, trial in enumerate(sorted((one for one in own if one.end), key=lambda one: one.ended), 1):
        best = max(best, trial.best.mAP if trial.best else 0.0)
        spent += trial.rank_hours
        board.scalars({"search/best mAP so far": best, "search/rank hours": spent}, count, trial.ended)


def importance_bars(shares: Mapping[str, float], stream: str) -> Figure:
    """Draw one bar for each setting, the most important on top."""
    names = sorted(shares, key=lambda name: shares[name])
    title = f"{title_of(stream)}: what mattered to the held-out mAP"
    figure = new_figure(title)
    axes = figure.add_subplot(xlabel="share of the variance of the scores that the setting explains alone")
    axes.barh(names, [shares[name] for name in names], height=0.5, color=hexadecimal(colour_of(stream)))
    for place, name in enumerate(names):
        axes.text(0.005, place + 0.3, f"{name}  {shares[name]:.0%}")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, len(names))
    axes.set_yticks([])
    return figure


def score_curves(trials: Sequence[Trial], stream: str) -> Figure:
    """Draw the held-out mAP of every trial by epoch; curves of trials ended early are shorter."""
    own = rank_trials(trials, stream)
    figure = new_figure(f"{title_of(stream)}: {len(own)} trials, the best in colour")
    axes = figure.add_subplot(xlabel="epoch", ylabel="held-out mAP (%)")
    for trial in reversed(own):
        colour, width = (colour_of(stream), 2.0) if trial is own[0] else (SOFT, 0.7)
        points = [(score.epoch, 100 * score.mAP) for score in trial.scores]
        axes.plot(*zip(*points, strict=True), color=hexadecimal(colour), linewidth=width, marker=".")
    return figure
