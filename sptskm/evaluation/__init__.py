"""Protocols, metrics and fusion: from features and labels to scores that name their protocol."""

from sptskm.evaluation.cameras import CameraPairs, camera_pairs
from sptskm.evaluation.distances import squared_distances, stream_distances
from sptskm.evaluation.explain import Explained, explain
from sptskm.evaluation.fixed import FusedDistance
from sptskm.evaluation.fusion import (
    Features,
    Normalisation,
    StreamDistances,
    align,
    choose_weight,
    fuse,
    precision_table,
)
from sptskm.evaluation.metrics import (
    Rows,
    Scores,
    clothes_changed,
    evaluate,
    evaluate_features,
    not_ranked,
)
from sptskm.evaluation.protocols import PROTOCOLS, Protocol, check_labels, protocol, select
from sptskm.evaluation.refusals import check_choosing, check_judging, check_some
from sptskm.evaluation.reranking import Reranking, check_memory, feature_distances, fused_distances, rerank

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
    "check_choosing",
    "check_judging",
    "check_labels",
    "check_memory",
    "check_some",
    "choose_weight",
    "clothes_changed",
    "evaluate",
    "evaluate_features",
    "explain",
    "feature_distances",
    "fuse",
    "fused_distances",
    "not_ranked",
    "precision_table",
    "protocol",
    "rerank",
    "select",
    "squared_distances",
    "stream_distances",
]
