"""Wide ST-GCNs on a CPU sum over the graph in another order than the published code. B clips, T frames, V joints."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.oracles import GAINS, fill
from torch import Tensor

from sptskm.models.graph import GraphName
from sptskm.models.recomputing import recompute
from sptskm.models.stgcn import STGCN, WIDE, GraphConv, Pooling


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network(graph: GraphName = "spatial", **options: Any) -> STGCN:
    model = STGCN(graph, **{"width": WIDE, "dropout": 0.0, **options})
    fill(model, GAINS)
    return model.double().train()


def as_published(model: STGCN) -> STGCN:
    """The same weights without the joints that a partition carries: the sum of the published code."""
    plain = network(model.graph, pooling=model.pooling)
    plain.load_state_dict(model.state_dict())
    for module in plain.modules():
        if isinstance(module, STGCN | GraphConv):
            module.sources = None
    return plain


def gradients(model: STGCN, x: Tensor, valid: Tensor | None) -> list[Tensor]:
    """Features and the gradients of a sum over them that is not symmetric, inputs first."""
    x = x.clone().requires_grad_()
    features = model(x, valid)
    (features.square() * torch.arange(1.0, features.shape[1] + 1)).sum().backward()
    return [features.detach(), *(p.grad for p in (x, *model.parameters()) if p.grad is not None)]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("graph", ["spatial", "published"])
@pytest.mark.parametrize(("clips", "frames", "pooling"), [(4, 11, "mean"), (1, 2, "mean"), (3, 8, "mean+std")])
def test_features_and_gradients_are_those_of_the_published_sum(
    graph: GraphName, gaps: bool, clips: int, frames: int, pooling: Pooling
) -> None:
    model, x = network(graph, pooling=pooling), torch.randn(clips, 4, frames, 14, dtype=torch.float64)
    valid = torch.arange(frames).expand(clips, -1) % 4 != 3 if gaps else None
    plain = as_published(model)
    found, wanted = gradients(model, x, valid), gradients(plain, x, valid)
    assert len(found) == len(wanted) == 2 + len(list(model.parameters()))
    whole = torch.stack([one.norm() for one in wanted]).norm().item()
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12 * whole)
    for a, b in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(model.eval()(x, valid), plain.eval()(x, valid))


def test_only_joints_with_an_edge_are_convolved() -> None:
    """To itself each joint carries, to others not farther from the neck all but the neck, and outward three."""
    assert [len(joints) for joints in network().sources or ()] == [14, 13, 3]
    assert [len(joints) for joints in network("published").sources or ()] == [14, 0, 0]


def test_narrow_networks_half_precision_and_compilers_keep_the_published_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    x, summed = torch.randn(2, 4, 8, 14), list[int]()
    by_joints = GraphConv._by_joints

    def counted(conv: GraphConv, x: Tensor, *rest: Any) -> Tensor:
        summed.append(conv.partitions)
        return by_joints(conv, x, *rest)

    monkeypatch.setattr(GraphConv, "_by_joints", counted)
    narrow, wide = network(width=WIDE - 1).float(), network().float()
    narrow(x)
    with torch.autocast("cpu", torch.bfloat16):
        wide(x)
    with monkeypatch.context() as compiler:
        compiler.setattr(torch.compiler, "is_compiling", lambda: True)
        wide(x)
    assert not summed
    wide(x)
    assert len(summed) == len(wide.st_gcn_networks)


def test_recomputed_activations_give_the_same_gradients_with_dropout() -> None:
    model, again = network(dropout=0.5), network(dropout=0.5)
    recompute(again)
    x = torch.randn(4, 4, 8, 14, dtype=torch.float64)
    found = []
    for one in (model, again):
        torch.manual_seed(1)
        found.append(gradients(one, x, None))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
