"""Protocols, metrics and fusion: features and labels in, numbers that name their protocol out."""

from sptskm.evaluation.cameras import CameraPairs, camera_pairs
from sptskm.evaluation.distances import squared_distances, stream_distances
from sptskm.evaluation.explain import Explained, explain
from sptskm.evaluation.fixed import FusedDistance
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
from sptskm.evaluation.reranking import Reranking, rerank

__all__ = [
    "PROTOCOLS",
    "CameraPairs",
    "Explained",
    "Features",
    "FusedDistance",
    "Normalisation",
    "Protocol",
    "Reranking",
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
    "explain",
    "fuse",
    "not_ranked",
    "protocol",
    "rerank",
    "select",
    "squared_distances",
    "stream_distances",
]
