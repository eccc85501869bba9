"""Distances of SSIN, which has input for all tracklets, and SMIN, which has it where the flags say so."""

import numpy as np

from sptskm.evaluation import Distances, FusedDistance, StreamDistances


def of_pair(ssin: np.ndarray, smin: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> StreamDistances:
    """Both streams, by distances (Q, G) and the flags of SMIN (Q,) and (G,)."""
    everybody = np.ones(len(query), bool), np.ones(len(gallery), bool)
    return StreamDistances({"ssin": Distances(ssin, *everybody), "smin": Distances(smin, query, gallery)})


def fused_pair(
    fixed: FusedDistance, ssin: np.ndarray, smin: np.ndarray, query: np.ndarray, gallery: np.ndarray
) -> np.ndarray:
    """The fused distances (Q, G) of the same."""
    sides = ({"ssin": np.ones(len(valid), bool), "smin": valid} for valid in (query, gallery))
    return fixed.of({"ssin": ssin, "smin": smin}, *sides)
