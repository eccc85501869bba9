"""Distances of SSIN, which has input for all tracklets, and SMIN, which has it where the flags say so."""

from dataclasses import dataclass

import numpy as np

from sptskm.evaluation import PROTOCOLS, Distances, FusedDistance, Normalisation, Part, Protocol, Rows, StreamDistances

TORCHREID = PROTOCOLS["torchreid"]


def of_pair(ssin: np.ndarray, smin: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> StreamDistances:
    """Both streams, by distances (Q, G) and the flags of SMIN (Q,) and (G,)."""
    everybody = np.ones(len(query), bool), np.ones(len(gallery), bool)
    return StreamDistances({"ssin": Distances(ssin, *everybody), "smin": Distances(smin, query, gallery)})


@dataclass(frozen=True, eq=False)
class Given(Part):
    """Queries and gallery whose distances are given, instead of features."""

    streams: StreamDistances

    def distances(self, kind: Normalisation) -> StreamDistances:  # noqa: ARG002  # as Part has it
        return self.streams


def part_with(query: Rows, gallery: Rows, streams: StreamDistances, rules: Protocol = TORCHREID) -> Part:
    return Given(np.arange(len(query)), np.arange(len(gallery)), query, gallery, rules, [], streams)


def fused_pair(
    fixed: FusedDistance, ssin: np.ndarray, smin: np.ndarray, query: np.ndarray, gallery: np.ndarray
) -> np.ndarray:
    """The fused distances (Q, G) of the same."""
    sides = ({"ssin": np.ones(len(valid), bool), "smin": valid} for valid in (query, gallery))
    return fixed.of({"ssin": ssin, "smin": smin}, *sides)
