"""Show what a trained stream looks at, on a few test tracklets and in seconds. The network is not changed.

Legend: N test tracklets, n of them, c clips, T frames, V = 14 joints, h, w rows and columns of a feature map.
"""

import numpy as np
import torch
from torch import Tensor, nn

from sptskm.data.skeletons import JOINTS
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.evaluation import Features
from sptskm.models import SSIN
from sptskm.report.insight import Attention, Insight, Joints
from sptskm.training.precision import Precision
from sptskm.training.setup import Setup
from sptskm.training.world import World

ATTENDED = 4  # tracklets
OCCLUDED = 16


def explain(model: nn.Module, setup: Setup, test: Features, world: World) -> Insight:
    """Compute SSIN's attention maps or SMIN's joint importance for a few queries; nothing if there is no query.

    `test` are the features of the test tracklets. One process does it alone, with the model in the state of extraction.
    """
    if not len(setup.table.query):
        return Insight()
    model.eval()
    if isinstance(model, SSIN):
        chosen = _evenly(setup.table.test[setup.table.query], ATTENDED)
        return Insight([_attention(model, setup, int(row), world) for row in chosen])
    return Insight(joints=_joints(model, setup, test, world))


def _evenly(rows_n: IntArray, count: int) -> IntArray:
    return rows_n[np.unique(np.linspace(0, len(rows_n) - 1, min(count, len(rows_n))).round().astype(int))]


def _clip(setup: Setup, row: int, world: World) -> tuple[Tensor, ...]:
    """Return the middle test clip of a tracklet as input of the network."""
    clips_cT = setup.source.all_clips(row)
    middle = len(clips_cT) // 2
    precision = Precision.of(setup.config.train.precision, world.device)
    inputs = setup.source.read(row, clips_cT[middle : middle + 1])
    return setup.stream.prepare(inputs, world.device, precision.dtype)


@torch.inference_mode()
def _embed(model: nn.Module, setup: Setup, inputs: tuple[Tensor, ...], world: World) -> Tensor:
    with Precision.of(setup.config.train.precision, world.device).autocast():
        return model.embed(*inputs).float().cpu()  # type: ignore[operator, no-any-return]


def _attention(model: SSIN, setup: Setup, row: int, world: World) -> Attention:
    """Record the first of SSIN's three attentions in a forward pass; the other two have coarser maps."""
    frames, masks = _clip(setup, row, world)
    seen: list[Tensor] = []
    block = model.attenblock0
    hook = block.register_forward_hook(lambda block, inputs, _: seen.append(_map_of(block, *inputs)))
    try:
        _embed(model, setup, (frames, masks), world)
    finally:
        hook.remove()
    return Attention(
        str(setup.table.keys_N[row]),
        frames[0].float().cpu().numpy(),
        masks[0].float().cpu().numpy(),
        seen[0].float().cpu().numpy(),
        float(block.gamma.detach()),  # type: ignore[arg-type, operator]
    )


def _map_of(block: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Return the mask attention (T, h, w) of one clip: its mean over channels times the number of positions.

    Features (T, C, h, w) have one map per frame, features (1, C, T, h, w) one per clip.
    """
    attention_NKP = block.attention(image, mask)  # type: ignore[operator]
    relative = attention_NKP.float().mean(dim=1) * attention_NKP.shape[2]
    return relative.reshape(-1, *image.shape[-2:])


def _joints(model: nn.Module, setup: Setup, test: Features, world: World) -> Joints | None:
    """Measure how far a query moves from its identity's other tracklets when one joint is set to the origin."""
    table, changes, skeletons = setup.table, [], []
    candidates = [n for n in table.query.tolist() if test.valid_N[n] and len(_others(table, test, n))]
    for n in _evenly(np.array(candidates, np.int64), OCCLUDED).tolist() if candidates else ():
        skeleton, *valid = _clip(setup, int(table.test[n]), world)
        occluded = skeleton.repeat(1 + len(JOINTS), 1, 1, 1)
        for joint in range(len(JOINTS)):
            occluded[joint + 1, :3, :, joint] = 0
        embedded = _embed(model, setup, (occluded, *(v.expand(len(occluded), -1) for v in valid)), world)
        others = torch.from_numpy(test.features_ND[_others(table, test, n)])
        distances = (embedded[:, None] - others).square().sum(-1).mean(1).double().numpy()
        changes.append(distances[1:] / max(distances[0], 1e-12) - 1)
        skeletons.append(_drawable(skeleton, *valid))
    if not changes:
        return None
    change_nV = np.array(changes)
    error_V = change_nV.std(axis=0, ddof=1) / np.sqrt(len(changes)) if len(changes) > 1 else np.full(14, np.nan)
    return Joints(change_nV.mean(axis=0), error_V, len(changes), skeletons[0])


def _others(table: Tracklets, test: Features, n: int) -> IntArray:
    """Return the other test tracklets of an identity, as positions among the test tracklets."""
    pids_N = table.pids_N[table.test]
    same_N = (pids_N == pids_N[n]) & test.valid_N
    same_N[n] = False
    return np.flatnonzero(same_N)


def _drawable(skeleton: Tensor, valid: Tensor | None = None) -> np.ndarray:
    """Return the first valid skeleton (V, 4) of a clip (1, 4, T, V)."""
    first = 0 if valid is None else int(valid[0].int().argmax())
    return skeleton[0, :, first].T.float().cpu().numpy()
