"""The final job: extract features of trained streams, fuse their distances, report under a named protocol.

Legend: N tracklets, Q queries, G gallery rows.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from sptskm.atomic import write_error
from sptskm.common.paths import exists
from sptskm.config import Config, ConfigError, Final
from sptskm.configfile import apply_overrides, from_dict
from sptskm.data import Split, Tracklets
from sptskm.data.derived import methods_in, warn_of_methods
from sptskm.evaluation import (
    Chosen,
    Distances,
    Features,
    FusedDistance,
    Normalisation,
    Rows,
    StreamDistances,
    Weights,
    aligned,
    check_choosing,
    check_judging,
    check_some,
    choose,
    evaluate,
    feature_distances,
    fuse,
    fused_distances,
    fused_streams,
    given_weights,
    protocol,
    rerank,
    select,
    stream_distances,
)
from sptskm.evaluation.distances import Floats
from sptskm.extraction import load_weights
from sptskm.report.insight import Insight
from sptskm.report.results import RESULTS, Fusion, Ranking, Results
from sptskm.report.writing import write
from sptskm.training.explain import explain
from sptskm.training.extract import extract
from sptskm.training.precision import Precision
from sptskm.training.rundir import RunDir, fingerprint
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


@dataclass(frozen=True, eq=False)
class Part:
    """Query and gallery rows among the held-out or the test tracklets; row numbers count within that part."""

    query_rows: NDArray[np.int64]
    gallery_rows: NDArray[np.int64]
    query: Rows
    gallery: Rows

    def alone(self, features: Features) -> NDArray[np.float64]:
        """Compute the squared Euclidean distances (Q, G) of one stream; a tracklet without input is infinitely far."""
        query, gallery = (features.features_ND[rows] for rows in (self.query_rows, self.gallery_rows))
        valid = (features.valid_N[rows] for rows in (self.query_rows, self.gallery_rows))
        return stream_distances(query, gallery, *valid)

    def fusable(self, features: Sequence[Features], kind: Normalisation) -> StreamDistances:
        """Compute the distances of several streams; for "concat" the features are first scaled to length 1.

        Raises errors as `align` and StreamDistances.
        """
        sides = self.query_rows, self.gallery_rows
        return StreamDistances(
            {
                name: Distances(self.alone(own), *(own.valid_N[rows] for rows in sides))
                for name, own in aligned(features, kind).items()
            }
        )


@dataclass(frozen=True)
class HeldOut:
    """Fusion of several runs, chosen on held-out identities, and the scores there."""

    normalisation: Normalisation
    weights: Weights
    mAP: Mapping[str, float]
    """Of each stream and fused."""


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
    _claim(Path(out))
    streams = _trained(runs, [*overrides, "data.test=true"], settings, stop)
    if streams is None:
        return None
    results = _evaluate(streams, settings)
    write(results, Path(out))
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


def fuse_held_out(runs: Sequence[str | Path], settings: Final, stop: StopFlag | None = None) -> HeldOut | None:
    """Choose the normalisation and weights that fuse runs best on held-out identities, without reading test files.

    Every rank makes the same call; rank 0 gets the result. Raises errors as `final`.
    """
    open_to_choice = replace(settings, weight=None, weights={}, normalisation="auto")
    streams = _trained(runs, ["data.test=false"], open_to_choice, stop)
    if streams is None:
        return None
    part = _held_out(streams, settings)
    alone: dict[str, float] = {
        stream.config.stream: evaluate(part.alone(stream.held_out), part.query, part.gallery, settings.protocol).mAP
        for stream in streams
    }
    found = _best(streams, part, open_to_choice)
    return HeldOut(found.normalisation, found.weights, {**alone, "fused": found.mAP})


def _trained(
    runs: Sequence[str | Path], overrides: Sequence[str], settings: Final, stop: StopFlag | None
) -> list[Trained] | None:
    """Extract the features of all runs; every rank makes the same call, and rank 0 gets them in order."""
    states = [RunDir(run).trained() for run in runs]
    configs = [_config(state, overrides, str(run)) for state, run in zip(states, runs, strict=True)]
    wanted = fused_streams(settings, [config.stream for config in configs])
    chosen = [(config, state) for config, state in zip(configs, states, strict=True) if config.stream in wanted]
    configs, states = [config for config, _ in chosen], [state for _, state in chosen]
    choosing = _check(configs, states, settings)
    with join(configs[0].train.threads, configs[0].train.timeout_minutes) as world:
        pairs = zip(configs, states, strict=True)
        streams = [_extract(config, state, world, stop, settings, choosing) for config, state in pairs]
    return sorted(streams, key=lambda stream: wanted.index(stream.config.stream)) if world.is_main else None


def _config(state: Mapping[str, Any], overrides: Sequence[str], run: str) -> Config:
    """Return the configuration of a run, which may have been moved since. Raise ConfigError with its folder."""
    try:
        config = from_dict(state["config"])
        if "provenance" not in state:
            raise ConfigError("its checkpoint does not say which data it was trained on, wanted one of `sptskm train`")
    except ConfigError as error:
        raise ConfigError(f"{run}: {error}") from None
    return replace(apply_overrides(config, overrides), run=run)


def _check(configs: Sequence[Config], states: Sequence[Mapping[str, Any]], settings: Final) -> bool:
    """Raise ConfigError for every setting that would make the job useless, before it takes time.

    Returns whether the fusion weights will be chosen on the held-out identities.
    """
    protocol(settings.protocol)
    names = [config.stream for config in configs]
    if len(set(names)) != len(names):
        raise ConfigError(f"the runs are {' and '.join(names)}, wanted one of each stream")
    for what in ("fingerprint", "split"):
        found = {str(state["provenance"].get(what)) for state in states}
        if len(found) > 1:
            raise ConfigError(f"the runs differ in {what} ({' and '.join(sorted(found))}) and cannot be fused")
    choosing = len(names) > 1 and given_weights(settings, fused_streams(settings, names)) is None
    if choosing and configs[0].data.held_out == 0:
        raise ConfigError("no identities were held out to choose the fusion weight on: set the final job's weight")
    return choosing


def _extract(
    config: Config, state: Mapping[str, Any], world: World, stop: StopFlag | None, settings: Final, choosing: bool
) -> Trained:
    """Extract the features of one stream and record their provenance.

    `choosing`: the fusion weight will be chosen on the held-out identities.
    """
    setup = Setup.of(config, world, training=False)
    check_judging(settings, setup.table)
    if choosing:
        check_choosing(settings, setup.table, setup.split)
    if differing := [key for key, value in state["provenance"].items() if setup.provenance.get(key) != value]:
        raise ConfigError(
            f"{config.run}: was trained on other data than {config.data.root} holds now (other "
            f"{', '.join(differing)}); for the test part of other data use `sptskm extract` and `sptskm score`"
        )
    if world.is_main:
        warn_of_methods(f"{config.run}", methods_in(state.get("methods")), config.data.root, setup.methods)
    precision = Precision.of(config.train.precision, world.device)
    model = setup.network(pretrained=False).to(world.device, precision.dtype)
    load_weights(model, state["model"], Path(config.run))
    rows = np.concatenate([setup.split.held_out, setup.table.test])
    setup.stage(rows)
    found = extract(model, setup.stream, setup.source, rows, config, world, stop)
    keys, cut = setup.table.keys_N[rows], len(setup.split.held_out)
    held_out, test = (
        Features(found.features_ND[part], keys[part], found.valid_N[part], setup.table.fingerprint, config.stream)
        for part in (slice(None, cut), slice(cut, None))
    )
    origin = {"step": state["step"], "held_out_mAP": state["best_mAP"], "version": state["version"]}
    origin |= {"methods": setup.methods}
    origin |= {"network": fingerprint(state["model"]), "finished": exists(RunDir(config.run).result)}
    if not origin["finished"]:
        log.warning("%s: training has not finished, its weights of step %s are evaluated", config.run, state["step"])
    insight = explain(model, setup, test, world) if world.is_main else Insight()
    return Trained(config, setup.table, setup.split, held_out, test, {**state["provenance"], **origin}, insight)


def _part(table: Tracklets, rows: NDArray[np.int64], query: NDArray[np.int64], name: str) -> Part:
    rules = protocol(name)
    query_rows, gallery_rows = select(rules, table.pids_N[rows], table.lengths[rows], query)
    whose = "test" if len(rows) and rows[0] >= table.num_train else "held-out"
    check_some(rules, whose, len(query_rows), len(gallery_rows))
    return Part(query_rows, gallery_rows, Rows.of(table, rows[query_rows]), Rows.of(table, rows[gallery_rows]))


def _evaluate(streams: Sequence[Trained], settings: Final) -> Results:
    """Score each stream alone, their fusion and, if wanted, the last of these re-ranked."""
    table = streams[0].table
    test = _part(table, table.test, table.query, settings.protocol)

    def judged(name: str, distance_QG: Floats) -> Ranking:
        return Ranking(name, distance_QG, evaluate(distance_QG, test.query, test.gallery, settings.protocol))

    rankings = [judged(stream.config.stream, test.alone(stream.test)) for stream in streams]
    fusion = None
    if len(streams) > 1:
        fusion, fused_QG = _fuse(streams, test, settings)
        rankings.append(judged("fused", fused_QG))
    if settings.rerank:
        rankings.append(judged("reranked", _reranked(streams, test, fusion, settings)))
    return Results(
        table=table,
        query_rows=table.test[test.query_rows],
        gallery_rows=table.test[test.gallery_rows],
        query=test.query,
        gallery=test.gallery,
        rankings=rankings,
        fusion=fusion,
        features=[stream.test for stream in streams],
        configs=[stream.config for stream in streams],
        settings=settings,
        provenance={stream.config.stream: stream.provenance for stream in streams},
        insight=Insight(
            [attention for stream in streams for attention in stream.insight.attention],
            next((stream.insight.joints for stream in streams if stream.insight.joints is not None), None),
        ),
    )


def _fuse(streams: Sequence[Trained], test: Part, settings: Final) -> tuple[Fusion, Floats]:
    """Fuse all streams; return the fusion and the fused distances (Q, G)."""
    kind, weights, curve_WS = _choose(streams, settings)
    distances = test.fusable([stream.test for stream in streams], kind)
    distance = None if kind == "rank" else FusedDistance.fitted(distances, weights, kind)
    return Fusion(weights, kind, curve_WS, distance), fuse(distances, weights, kind)


def _reranked(streams: Sequence[Trained], test: Part, fusion: Fusion | None, settings: Final) -> NDArray[np.float64]:
    """Re-rank one stream or the fusion among all tracklets that are queries or in the gallery.

    Returns distances (Q, G). Only tracklets with input of the stream that most of them have are re-ranked, so that
    every two of them can be compared; the others are infinitely far, as in the plain ranking of a single stream.
    """
    rows = np.union1d(test.query_rows, test.gallery_rows)
    features = aligned([stream.test for stream in streams], "" if fusion is None else fusion.normalisation)
    common = max(features.values(), key=lambda own: np.count_nonzero(own.valid_N[rows]))
    rows = rows[common.valid_N[rows]]
    if fusion is None or fusion.distance is None:
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


def _choose(streams: Sequence[Trained], settings: Final) -> tuple[Normalisation, Weights, NDArray[np.float64] | None]:
    """Return normalisation and weights as given, or the best on the held-out identities with the curve of all tried."""
    weights = given_weights(settings, [stream.config.stream for stream in streams])
    if weights is not None:
        assert settings.normalisation != "auto", "which is refused with weights"
        return settings.normalisation, weights, None
    found = _best(streams, _held_out(streams, settings), settings)
    return found.normalisation, found.weights, found.curve_WS


def _held_out(streams: Sequence[Trained], settings: Final) -> Part:
    split = streams[0].split
    return _part(streams[0].table, split.held_out, split.query, settings.protocol)


def _best(streams: Sequence[Trained], held_out: Part, settings: Final) -> Chosen:
    """Choose the normalisation (given, or the best on the held-out identities) and its best weights."""
    kinds = get_args(Normalisation) if settings.normalisation == "auto" else (settings.normalisation,)
    kinds = tuple(kind for kind in kinds if kind != "rank" or not settings.rerank)  # it has no distance of a pair
    features = [stream.held_out for stream in streams]
    return choose(
        lambda kind: held_out.fusable(features, kind),
        held_out.query,
        held_out.gallery,
        settings.protocol,
        kinds,
        settings.weight_step,
    )
