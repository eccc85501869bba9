"""Protocols, metrics and fusion: from features and labels to scores that carry their protocol."""

from sptskm.evaluation.calibration import Calibration, calibrate
from sptskm.evaluation.cameras import CameraPairs, camera_pairs
from sptskm.evaluation.choosing import (
    Fusion,
    calibrated,
    choose,
    slopes_of,
    weight_grid,
)
from sptskm.evaluation.distances import squared_distances, stream_distances
from sptskm.evaluation.features import Features, align, aligned
from sptskm.evaluation.fusion import (
    Distances,
    FusedDistance,
    Normalisation,
    StreamDistances,
    Weights,
    fuse,
    pair_weight,
    pair_weights,
)
from sptskm.evaluation.metrics import (
    Rows,
    Scores,
    clothes_changed,
    evaluate,
    feature_blocks,
    not_ranked,
)
from sptskm.evaluation.offering import Offer
from sptskm.evaluation.parts import Part, check_choosing, everybody, part_of
from sptskm.evaluation.protocol_counts import explain_protocol
from sptskm.evaluation.protocols import OFFICIAL, PROTOCOLS, Protocol, protocol, select
from sptskm.evaluation.refusals import (
    check_judging,
    fused_streams,
    given_weights,
    idle_weights,
    instead_of_people,
    must_choose,
    protocol_of,
)
from sptskm.evaluation.reranking import Reranking, check_memory, feature_distances, fused_distances, rerank

__all__ = [
    "OFFICIAL",
    "PROTOCOLS",
    "Calibration",
    "CameraPairs",
    "Distances",
    "Features",
    "FusedDistance",
    "Fusion",
    "Normalisation",
    "Offer",
    "Part",
    "Protocol",
    "Reranking",
    "Rows",
    "Scores",
    "StreamDistances",
    "Weights",
    "align",
    "aligned",
    "calibrate",
    "calibrated",
    "camera_pairs",
    "check_choosing",
    "check_judging",
    "check_memory",
    "choose",
    "clothes_changed",
    "evaluate",
    "everybody",
    "explain_protocol",
    "feature_blocks",
    "feature_distances",
    "fuse",
    "fused_distances",
    "fused_streams",
    "given_weights",
    "idle_weights",
    "instead_of_people",
    "must_choose",
    "not_ranked",
    "pair_weight",
    "pair_weights",
    "part_of",
    "protocol",
    "protocol_of",
    "rerank",
    "select",
    "slopes_of",
    "squared_distances",
    "stream_distances",
    "weight_grid",
]
