"""The final job: extract features of trained streams, fuse their distances, report under a named protocol.

Legend: N tracklets, Q queries, G gallery rows.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sptskm.common.atomic import write_error
from sptskm.common.paths import exists, fold_folder
from sptskm.config import Config, ConfigError, Final
from sptskm.data import Split, Tracklets
from sptskm.data.derived import warn_of_methods
from sptskm.evaluation import (
    Features,
    FusedDistance,
    Fusion,
    Normalisation,
    Part,
    Protocol,
    aligned,
    calibrated,
    check_choosing,
    check_judging,
    choose,
    evaluate,
    everybody,
    feature_distances,
    fuse,
    fused_distances,
    fused_streams,
    given_weights,
    idle_weights,
    instead_of_people,
    must_choose,
    part_of,
    protocol_of,
    rerank,
    slopes_of,
)
from sptskm.evaluation.distances import Floats
from sptskm.evaluation.fusion import OF_THE_DATA
from sptskm.evaluation.insight import Insight
from sptskm.evaluation.results import RESULTS, Ranking, Results
from sptskm.evaluation.saving import write_results
from sptskm.extraction import Network, load_network
from sptskm.provenance import origin
from sptskm.report.writing import check_figures, write_report
from sptskm.training.explain import explain
from sptskm.training.extract import extract
from sptskm.training.logbook import training_cost
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag
from sptskm.training.world import World, join

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """One trained stream with its features of the held-out and of the test tracklets."""

    config: Config
    table: Tracklets
    split: Split
    held_out: Features
    test: Features
    provenance: Mapping[str, Any]
    insight: Insight


def final(
    runs: Sequence[str | Path],
    out: str | Path,
    settings: Final,
    overrides: Sequence[str] = (),
    stop: StopFlag | None = None,
) -> Results | None:
    """Evaluate trained runs of one or more streams together and write everything below `out`.

    Every rank makes the same call; rank 0 gets the results. `overrides` apply to the runs' configurations (path of the
    data, how features are extracted); the test part is always read.
    Raises FileNotFoundError for a run without weights, ConfigError or DataError when the runs do not belong together,
    and Stopped when a rank's `stop` was set before all features were extracted.
    """
    rules = protocol_of(settings)
    opened, folds = _opened(runs, [*overrides, "data.test=true"], settings)
    if note := idle_weights(settings, [one.config.stream for one in opened]):
        log.warning(note)
    _claim(Path(out))
    streams, left_out = _extracted(opened, folds, settings, rules, stop)
    if not streams:
        return None
    results = _evaluate(streams, left_out, settings, rules)
    write_report(results, write_results(results, Path(out), origin()), Path(out))
    return results


def _claim(out: Path) -> None:
    """Create the output folder; raise ConfigError before the extraction where it cannot be used."""
    if RunDir(out).checkpoints() or exists(RunDir(out).config):
        raise ConfigError(f"{out}: holds a training run, wanted a folder of its own for the results")
    try:
        out.mkdir(parents=True, exist_ok=True)
        why = write_error(out / RESULTS)
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise ConfigError(f"{out}: {why}, wanted a folder for the results")
    check_figures(out)


def fuse_held_out(
    runs: Sequence[str | Path], settings: Final, stop: StopFlag | None = None
) -> tuple[Fusion, dict[str, float]] | None:
    """Choose the normalisation and weights that fuse runs best on held-out identities, without reading test files.

    Every rank makes the same call; rank 0 gets the fusion, and the mAP of each stream and fused on these identities.
    Raises errors as `final`.
    """
    open_to_choice = replace(settings, weight=None, weights={}, normalisation="auto", folds=0)
    rules = protocol_of(settings)
    opened, folds = _opened(runs, ["data.test=false"], open_to_choice)
    streams, _ = _extracted(opened, folds, open_to_choice, rules, stop)
    if not streams:
        return None
    part = _held_out(streams, rules)
    scores = {one.stream: evaluate(part.alone(one), part.query, part.gallery, rules).mAP for one in part.features}
    fusion = _best([part], open_to_choice)
    assert fusion.mAP is not None
    return fusion, {**scores, "fused": fusion.mAP}


def _opened(
    runs: Sequence[str | Path], overrides: Sequence[str], settings: Final
) -> tuple[list[Network], list[list[Network]]]:
    """Load the runs of the streams that are wanted, in the order of streams, and those of the folds that choose.

    Raises ConfigError for every setting that would make the job useless, before it takes time.
    """
    opened = _loaded(runs, overrides, settings)
    names = [one.config.stream for one in opened]
    if len(set(names)) != len(names):
        raise ConfigError(f"the runs are {' and '.join(names)}, wanted one of each stream")
    for what in ("fingerprint", "split"):
        found = {str(one.record["provenance"].get(what)) for one in opened}
        if len(found) > 1:
            raise ConfigError(f"the runs differ in {what} ({' and '.join(sorted(found))}) and cannot be fused")
    if not must_choose(settings, names):
        return opened, []
    if opened[0].config.data.held_out == 0 and not settings.folds:
        raise ConfigError(f"no identities were held out to choose the fusion on: {instead_of_people(settings)}")
    folds = [
        _loaded([fold_folder(one.config.run, fold) for one in opened], [*overrides, "data.test=false"], settings)
        for fold in range(1, settings.folds + 1)
    ]
    _check_folds(folds, opened, settings)
    return opened, folds


def _loaded(runs: Sequence[str | Path], overrides: Sequence[str], settings: Final) -> list[Network]:
    loaded = [load_network(Path(run), overrides) for run in runs]
    if lacking := [one.config.run for one in loaded if one.record["provenance"] is None]:
        raise ConfigError(
            f"{lacking[0]}: its checkpoint does not say which data it was trained on, wanted one of `sptskm train`"
        )
    order = fused_streams(settings, [one.config.stream for one in loaded])
    return sorted((one for one in loaded if one.config.stream in order), key=lambda one: order.index(one.config.stream))


def _check_folds(folds: Sequence[Sequence[Network]], opened: Sequence[Network], settings: Final) -> None:
    """Raise ConfigError unless the runs of each fold leave that fold out, and are of the data of the runs on all."""
    for number, fold in enumerate(folds, start=1):
        for one, whole in zip(fold, opened, strict=True):
            if one.config.data.fold != (wanted := f"{number}/{settings.folds}"):
                raise ConfigError(
                    f"{one.config.run}: leaves out fold {one.config.data.fold or 'none'}, wanted {wanted}"
                )
            if one.record["provenance"].get("fingerprint") != whole.record["provenance"].get("fingerprint"):
                raise ConfigError(f"{one.config.run}: was trained on other data than {whole.config.run}")
        if len({one.record["provenance"].get("split") for one in fold}) > 1:
            raise ConfigError(f"{fold[0].config.run}: its people are not those of the other streams, wanted one split")


def _extracted(
    opened: Sequence[Network],
    folds: Sequence[Sequence[Network]],
    settings: Final,
    rules: Protocol,
    stop: StopFlag | None,
) -> tuple[list[Trained], list[Part]]:
    """Extract the features of all runs, and those of the people whom the runs of each fold left out.

    Every rank makes the same call, and rank 0 gets the features; others get none.
    """
    choosing = not folds and must_choose(settings, [one.config.stream for one in opened])
    with join(opened[0].config.train.threads, opened[0].config.train.timeout_minutes) as world:
        streams = [_extract(one, world, stop, settings, rules, choosing) for one in opened]
        found = [[_left_out(one, world, stop) for one in fold] for fold in folds]
    if not world.is_main:
        return [], []
    left_out = [(fold[0][0], [features for _, features in fold]) for fold in found]
    return streams, [everybody(streams[0].table, rows, rules, features) for rows, features in left_out]


def _extract(
    one: Network, world: World, stop: StopFlag | None, settings: Final, rules: Protocol, choosing: bool
) -> Trained:
    """Extract the features of one stream and record their provenance.

    `choosing`: the fusion weight will be chosen on the held-out identities.
    """
    config, record = one.config, one.record
    setup = Setup.of(config, world, training=False)
    check_judging(settings, rules, setup.table)
    if choosing:
        check_choosing(rules, setup.table, setup.split)
    model = _network(one, setup, world)
    rows = np.concatenate([setup.split.held_out, setup.table.test])
    found, cut = _features(one, setup, model, rows, world, stop), len(setup.split.held_out)
    held_out, test = found.part(slice(None, cut)), found.part(slice(cut, None))
    made = {"step": one.step, "held_out_mAP": record["best_mAP"], "version": record["version"]}
    made |= {"methods": setup.methods, "command": record["command"] or "-"}
    made |= {"network": one.fingerprint, "finished": exists(RunDir(config.run).result)}
    if cost := training_cost(Path(config.run)):
        made |= {"seconds": round(cost[0]), "ranks": cost[1]}
    if not made["finished"]:
        log.warning("%s: training has not finished, its weights of step %s are evaluated", config.run, one.step)
    insight = explain(model, setup, test, world) if world.is_main else Insight()
    return Trained(config, setup.table, setup.split, held_out, test, {**record["provenance"], **made}, insight)


def _left_out(one: Network, world: World, stop: StopFlag | None) -> tuple[NDArray[np.int64], Features]:
    """Extract the features of the people whom a run left out, and return them with their rows."""
    setup = Setup.of(one.config, world, training=False)
    rows = setup.split.left_out
    return rows, _features(one, setup, _network(one, setup, world), rows, world, stop)


def _network(one: Network, setup: Setup, world: World) -> nn.Module:
    """Bring a run's network to the device. Raises ConfigError where the data are not those that it was trained on."""
    config = one.config
    if differing := [key for key, value in one.record["provenance"].items() if setup.provenance.get(key) != value]:
        raise ConfigError(
            f"{config.run}: was trained on other data than {config.data.root} holds now (other "
            f"{', '.join(differing)}); for the test part of other data use `sptskm extract` and `sptskm score`"
        )
    if world.is_main:
        warn_of_methods(f"{config.run}", one.methods, config.data.root, setup.methods)
    return one.model.to(world.device, setup.precision.dtype)


def _features(
    one: Network, setup: Setup, model: nn.Module, rows: NDArray[np.int64], world: World, stop: StopFlag | None
) -> Features:
    setup.stage(rows)
    found = extract(model, setup.stream, setup.source, rows, one.config, world, stop)
    keys = setup.table.keys_N[rows]
    return Features(found.features_ND, keys, found.valid_N, setup.table.fingerprint, one.config.stream)


def _evaluate(streams: Sequence[Trained], folds: Sequence[Part], settings: Final, rules: Protocol) -> Results:
    """Score each stream alone, their fusion and, if wanted, the last of these re-ranked."""
    table = streams[0].table
    test = part_of(table, table.test, table.query, rules, [stream.test for stream in streams])

    def judged(name: str, distance_QG: Floats) -> Ranking:
        return Ranking(name, distance_QG, evaluate(distance_QG, test.query, test.gallery, rules))

    rankings = [judged(one.stream, test.alone(one)) for one in test.features]
    fusion = None
    if len(streams) > 1:
        fusion, fused_QG = _fuse(streams, folds, test, settings)
        rankings.append(judged("fused", fused_QG))
    if settings.rerank:
        rankings.append(judged("reranked", _reranked(test, fusion, settings)))
    return Results(
        table=table,
        test=test,
        rankings=rankings,
        fusion=fusion,
        configs=[stream.config for stream in streams],
        settings=settings,
        provenance={stream.config.stream: stream.provenance for stream in streams},
        insight=Insight(
            [attention for stream in streams for attention in stream.insight.attention],
            next((stream.insight.joints for stream in streams if stream.insight.joints is not None), None),
        ),
    )


def _fuse(streams: Sequence[Trained], folds: Sequence[Part], test: Part, settings: Final) -> tuple[Fusion, Floats]:
    """Fuse all streams; return the fusion and the fused distances (Q, G)."""
    weights = given_weights(settings, [one.stream for one in test.features])
    known = _known(streams, folds, test, settings, weights is None)
    if weights is None:
        fusion = _best(known, settings)
    else:
        slopes = slopes_of(known) if settings.normalisation == "calibrated" else None
        fusion = Fusion(weights, cast(Normalisation, settings.normalisation), slopes=slopes)
    kind = fusion.normalisation
    distances, how = test.distances(kind), (fusion.weights, kind, fusion.slopes)
    if kind != "rank":
        distance = FusedDistance.fitted(distances, *how)
        fusion = replace(fusion, distance=distance, odds=calibrated(known, kind, distance) if known else None)
    return fusion, fuse(distances, *how)


def _reranked(test: Part, fusion: Fusion | None, settings: Final) -> NDArray[np.float64]:
    """Re-rank one stream or the fusion among all tracklets that are queries or in the gallery.

    Returns distances (Q, G). Only tracklets with input of the stream that most of them have are re-ranked, so that
    every two of them can be compared; the others are infinitely far, as in the plain ranking of a single stream.
    """
    rows = np.union1d(test.query_rows, test.gallery_rows)
    features = aligned(test.features, "" if fusion is None else fusion.normalisation)
    common = max(features.values(), key=lambda own: np.count_nonzero(own.valid_N[rows]))
    rows = rows[common.valid_N[rows]]
    if fusion is None or not fusion.distance:
        distances = feature_distances(common.features_ND[rows])
    else:
        parts = {name: own.features_ND[rows] for name, own in features.items()}
        distances = fused_distances(parts, {name: own.valid_N[rows] for name, own in features.items()}, fusion.distance)
    query, gallery = (np.flatnonzero(np.isin(side, rows)) for side in (test.query_rows, test.gallery_rows))
    found_QG = np.full((len(test.query_rows), len(test.gallery_rows)), np.inf)
    if len(query) and len(gallery):
        at = np.searchsorted(rows, test.query_rows[query]), np.searchsorted(rows, test.gallery_rows[gallery])
        found = rerank(distances, *at, len(rows), gigabytes=settings.rerank_gigabytes)
        found_QG[np.ix_(query, gallery)] = found
    return found_QG


def _known(streams: Sequence[Trained], folds: Sequence[Part], test: Part, settings: Final, wanted: bool) -> list[Part]:
    """Return the people on whom the networks did not train, as far as there are and, if not `wanted`, as is known.

    Given weights need nobody; then a protocol may leave no query of the held-out people.
    """
    if not folds and len(streams[0].split.held_out) and (wanted or settings.normalisation == "calibrated"):
        folds = [_held_out(streams, test.protocol)]
    return [part.asked_as(test) for part in folds]


def _held_out(streams: Sequence[Trained], rules: Protocol) -> Part:
    table, split = streams[0].table, streams[0].split
    return part_of(table, split.held_out, split.query, rules, [stream.held_out for stream in streams])


def _best(parts: Sequence[Part], settings: Final) -> Fusion:
    """Choose the normalisation (given, or the best on these people) and its weights."""
    kinds: tuple[str, ...] = OF_THE_DATA if settings.normalisation == "auto" else (settings.normalisation,)
    kinds = tuple(kind for kind in kinds if kind != "rank" or not settings.rerank)  # it has no distance of a pair
    return choose(parts, cast(Sequence[Normalisation], kinds), settings.weight_step, settings.undecided == "fused")
