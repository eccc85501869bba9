"""Protocols, metrics and fusion: features and labels in, numbers that name their protocol out."""

from sptskm.evaluation.distances import squared_distances, stream_distances
from sptskm.evaluation.fusion import Features, Normalisation, StreamDistances, align, choose_weight, fuse
from sptskm.evaluation.metrics import (
    Rows,
    Scores,
    clothes_changed,
    evaluate,
    evaluate_features,
)
from sptskm.evaluation.protocols import PROTOCOLS, Protocol, protocol, select

__all__ = [
    "PROTOCOLS",
    "Features",
    "Normalisation",
    "Protocol",
    "Rows",
    "Scores",
    "StreamDistances",
    "align",
    "choose_weight",
    "clothes_changed",
    "evaluate",
    "evaluate_features",
    "fuse",
    "protocol",
    "select",
    "squared_distances",
    "stream_distances",
]
