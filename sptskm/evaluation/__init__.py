"""Protocols, metrics and fusion: features and labels in, numbers that name their protocol out."""

from sptskm.evaluation.cameras import CameraPairs, camera_pairs
from sptskm.evaluation.distances import squared_distances, stream_distances
from sptskm.evaluation.fusion import Features, Normalisation, StreamDistances, align, choose_weight, fuse
from sptskm.evaluation.metrics import (
    Rows,
    Scores,
    clothes_changed,
    evaluate,
    evaluate_features,
    not_ranked,
)
from sptskm.evaluation.protocols import PROTOCOLS, Protocol, check_labels, protocol, select

__all__ = [
    "PROTOCOLS",
    "CameraPairs",
    "Features",
    "Normalisation",
    "Protocol",
    "Rows",
    "Scores",
    "StreamDistances",
    "align",
    "camera_pairs",
    "check_labels",
    "choose_weight",
    "clothes_changed",
    "evaluate",
    "evaluate_features",
    "fuse",
    "not_ranked",
    "protocol",
    "select",
    "squared_distances",
    "stream_distances",
]
