"""SMIN and its ST-GCN backbone. Legend: B clips, T frames, V joints, C coordinates."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.oracles import GAINS, SHARED, fill, needs_shared, oracle, weights_by_rule
from torch import Tensor, nn

from sptskm.data.mirror import mirrored
from sptskm.data.skeletons import PARENTS
from sptskm.models import SMIN
from sptskm.models.graph import GraphName, adjacency
from sptskm.models.smin import with_bones
from sptskm.models.stgcn import STGCN, Block, Frames, GraphConv, batch_norm, frames_of

GRAPHS: tuple[GraphName, ...] = ("spatial", "published")
B, T = 3, 30


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(graph: GraphName = "spatial", dropout: float = 0.5) -> SMIN:
    """A narrow network whose weights are large enough for differences to show."""
    model = SMIN(5, graph, width=8, embedding_dim=16, dropout=dropout)
    fill(model.backbone, GAINS)
    nn.init.normal_(model.fc.weight)
    return model.eval()


def clips(seed: int = 0, frames: int = T) -> Tensor:
    return torch.randn(B, 4, frames, 14, generator=torch.Generator().manual_seed(seed))


def marked(frames: int, *invalid: int) -> Tensor:
    valid = torch.ones(B, frames, dtype=torch.bool)
    valid[:, list(invalid)] = False
    return valid


def selected(valid: Tensor) -> Frames:
    """The valid frames of a batch as a BN that trains is told them."""
    (frames,) = frames_of(valid, (), valid.device, select=True)
    return frames


@pytest.mark.parametrize("graph", GRAPHS)
def test_embeddings_have_unit_length_and_the_promised_dimension(graph: GraphName) -> None:
    model = small(graph)
    embedding = model.embed(clips())
    assert embedding.shape == (B, 16) == (B, model.embedding_dim)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(B))
    assert model.backbone(clips()).shape == (B, 32)


def test_the_papers_network_has_its_published_size_and_pools_256_features() -> None:
    model = SMIN(622)
    state = {name: value for name, value in model.backbone.state_dict().items() if name != "A"}
    fcn = 622 * 256 + 622  # the original's classifier, which the head replaces here
    assert sum(value.numel() for value in state.values()) + fcn == 3_237_085
    assert len(state) + 1 + 2 == 172
    assert model.eval().backbone(clips()).shape == (B, 256)


def test_training_gets_logits_and_the_embedding_of_embed() -> None:
    model = small()
    output = model(clips())
    assert output.logits.shape == (B, 5)
    torch.testing.assert_close(output.embedding, model.embed(clips()))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_clip_embeds_alike_alone_and_in_any_batch(graph: GraphName) -> None:
    model, x = small(graph), clips()
    together = model.embed(x)
    alone = torch.cat([model.embed(x[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-3, "else every clip embeds alike"


@pytest.mark.parametrize(("graph", "passes"), [("spatial", True), ("published", False)])
def test_joints_hear_of_each_other_on_the_spatial_graph_only(graph: GraphName, passes: bool) -> None:
    """The head's influence on the left ankle's features, before the final average over joints."""
    backbone, x = small(graph).backbone, clips().requires_grad_()
    y = x
    for block, importance in zip(backbone.st_gcn_networks, backbone.edge_importance, strict=True):
        y = block(y, backbone.A * importance, None, None)
    y[..., 13].square().sum().backward()
    assert x.grad is not None
    assert x.grad[..., 13].abs().max() > 0
    assert (x.grad[..., 0].abs().max().item() > 0) is passes


def test_the_graph_convolution_carries_joint_v_to_joint_w() -> None:
    conv = GraphConv(4, 3, 3)
    A_KVV, x = torch.rand(3, 14, 14), clips(frames=2)
    parts = conv.conv(x).view(B, 3, 3, 2, 14)
    wanted = torch.stack(
        [sum(A_KVV[k, v, w] * parts[:, k, :, :, v] for k in range(3) for v in range(14)) for w in range(14)], dim=-1
    )
    torch.testing.assert_close(conv(x, A_KVV), wanted, rtol=1e-4, atol=1e-5)


def test_a_block_adds_its_residual_before_the_last_relu() -> None:
    block, A_KVV, x = fill(Block(4, 4, 3), GAINS), torch.rand(3, 14, 14), clips()
    with torch.no_grad():
        y = block(x, A_KVV, None, None)
        plain = Block(4, 4, 3, residual=False).eval()
        plain.load_state_dict(block.state_dict())
        without = plain.tcn(plain.gcn(x, A_KVV))
    torch.testing.assert_close(y, (without + x).clamp(min=0))
    torch.testing.assert_close(plain(x, A_KVV, None, None), without.clamp(min=0))


def test_the_input_norm_counts_coordinates_within_joints() -> None:
    backbone, x = SMIN(5, width=8).eval().backbone, clips()
    nn.init.ones_(backbone.data_bn.weight)
    torch.testing.assert_close(backbone._normalise_input(x, None), x, rtol=1e-4, atol=1e-4)
    nn.init.zeros_(backbone.data_bn.weight)
    backbone.data_bn.bias.data = torch.arange(56.0)
    normalised = backbone._normalise_input(x, None)
    assert normalised[0, :, 0, 2].tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize("frames", [28, 27, 25, 5, 1])
def test_padding_never_changes_an_embedding(frames: int) -> None:
    model, x = small(), clips(frames=frames)
    padded = torch.full((B, 4, T, 14), 1e3)
    padded[:, :, :frames] = x
    valid = marked(T, *range(frames, T))
    torch.testing.assert_close(model.embed(padded, valid), model.embed(x), rtol=0, atol=1e-6)
    assert (model.embed(padded) - model.embed(x)).abs().max() > 1e-3, "without the mask it would"


@pytest.mark.parametrize("training", [False, True])
def test_what_stands_in_a_gap_does_not_matter_but_the_gap_does(training: bool) -> None:
    model, x, valid = small(dropout=0.0).train(training), clips(), marked(T, 3, 10, 11)
    other = x.clone()
    other[:, :, ~valid[0]] = 1e3
    torch.testing.assert_close(model.embed(other, valid), model.embed(x, valid), rtol=0, atol=1e-6)
    assert (model.embed(x, valid) - model.embed(x)).abs().max() > 1e-3


def test_all_frames_valid_is_the_same_as_no_mask() -> None:
    for training in (False, True):
        model = small(dropout=0.0).train(training)
        torch.testing.assert_close(model.embed(clips(), marked(T)), model.embed(clips()), rtol=0, atol=1e-5)


def test_batch_statistics_count_valid_frames_only() -> None:
    bn, x = nn.BatchNorm2d(4), torch.randn(B, 4, T, 14)
    valid = torch.rand(B, T) > 0.5
    x.transpose(1, 2)[~valid] = 1e3
    out = batch_norm(bn, x, selected(valid))
    frames = x.transpose(1, 2)[valid]  # (F, 4, 14)
    torch.testing.assert_close(bn.running_mean, 0.1 * frames.mean(dim=(0, 2)))
    seen = out.transpose(1, 2)[valid]
    torch.testing.assert_close(seen.mean(dim=(0, 2)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.std(dim=(0, 2), unbiased=False), torch.ones(4), rtol=0, atol=1e-4)
    assert not out.transpose(1, 2)[~valid].any()


def test_fixed_statistics_give_a_valid_frame_what_it_gets_alone_and_the_others_zero() -> None:
    bn, x, valid = fill(nn.BatchNorm2d(4), GAINS), torch.randn(B, 4, T, 14), torch.rand(B, T) > 0.5
    x.transpose(1, 2)[~valid] = torch.nan
    out = batch_norm(bn.eval(), x, selected(valid)).transpose(1, 2)
    torch.testing.assert_close(out[valid], bn(x.transpose(1, 2)[valid][..., None])[..., 0])
    assert not out[~valid].any()


def test_a_batch_without_any_valid_frame_leaves_the_statistics_alone() -> None:
    bn = nn.BatchNorm2d(4)
    out = batch_norm(bn, torch.randn(B, 4, T, 14), selected(torch.zeros(B, T, dtype=torch.bool)))
    assert not out.any()
    assert not bn.running_mean.any()


def test_channels_that_lie_innermost_on_a_device_still_do_after_a_norm() -> None:
    x, valid = torch.empty(B, 4, T, 14, device="meta").to(memory_format=torch.channels_last), marked(T, 3)
    (frames,) = frames_of(valid, (), x.device, select=True)
    out = batch_norm(nn.BatchNorm2d(4, device="meta"), x, frames)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("gradient", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("inputs", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_a_norm_over_valid_frames_do_not_depend_on_layouts(
    inputs: torch.memory_format, gradient: torch.memory_format
) -> None:
    """The backward pass of PyTorch 2.13 on a CPU is wrong for some pairs of strides of an axis of one place."""
    bn, values, above = nn.BatchNorm2d(4).double(), torch.randn(2, B, 4, T, 14, dtype=torch.float64), []
    every = selected(torch.ones(B, T, dtype=torch.bool))
    for frames in (None, every):
        x = values[0].to(memory_format=inputs).requires_grad_()
        (found,) = torch.autograd.grad(batch_norm(bn, x, frames), x, values[1].to(memory_format=gradient))
        above.append(found)
    torch.testing.assert_close(above[1], above[0])


def test_frames_are_valid_where_any_of_those_is_that_they_stand_for() -> None:
    valid = torch.tensor([[True, False, False, False, True], [False, False, False, True, False]])
    whole, half, same, quarter = frames_of(valid, (2, 1, 2), valid.device, select=True)
    assert half.valid_BT.tolist() == [[True, False, True], [False, True, False]]
    assert quarter.valid_BT.tolist() == [[True, True], [True, False]]
    assert same is half
    for frames in (whole, half, quarter):
        assert [place.tolist() for place in frames.places] == frames.valid_BT.nonzero().T.tolist()
    assert frames_of(valid, (), valid.device, select=False)[0].places is None


def test_running_statistics_of_a_training_step_do_not_depend_on_padding() -> None:
    short, long = small(dropout=0.0).train(), small(dropout=0.0).train()
    long.load_state_dict(short.state_dict())
    x = clips(frames=24)
    short(x)
    long(torch.cat([x, torch.full((B, 4, 6, 14), 1e3)], dim=2), marked(T, *range(24, T)))
    for (name, a), b in zip(short.named_buffers(), long.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("training", [False, True])
def test_a_clip_without_any_valid_frame_is_finite_and_leaves_the_others_alone(training: bool) -> None:
    model, x, valid = small().train(training), clips(), marked(T)
    valid[1] = False
    x[1] = torch.nan
    embedding = model.embed(x, valid)
    assert embedding.isfinite().all()
    assert not model.eval().backbone(x, valid)[1].any()
    torch.testing.assert_close(model.embed(x, valid)[0], model.embed(x[:1])[0], rtol=0, atol=1e-6)
    assert model.train(training).embed(x, torch.zeros_like(valid)).isfinite().all()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.parametrize("place", [0, 1, 2, 3, 28, 29])
def test_a_single_valid_frame_is_never_lost_between_the_strides(place: int) -> None:
    valid = torch.zeros(B, T, dtype=torch.bool)
    valid[:, place] = True
    features = small().backbone(clips(), valid)
    assert features.abs().amax(dim=1).min() > 1e-3
    assert (features[0] - features[1]).abs().max() > 1e-5


def test_a_clip_of_the_wrong_shape_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"skeletons must be \(B, 4, T, 14\), got \(3, 30, 14, 4\)"):
        small().embed(clips().permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"valid must be \(3, 30\), got \(3, 29\)"):
        small().embed(clips(), marked(29))


def test_initialisation_is_the_published_one() -> None:
    model = SMIN(622)
    assert model.fc.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert model.backbone.st_gcn_networks[9].gcn.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    norms = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, rel=0.1)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)


@needs_shared
@pytest.mark.parametrize(("graph", "original"), [("spatial", "fixed"), ("published", "published")])
@pytest.mark.parametrize(
    ("case", "channels", "options"),
    [
        ("first", (4, 64), {"residual": False}),
        ("same", (64, 64), {}),
        ("down", (64, 128), {"stride": 2}),
    ],
)
def test_blocks_compute_what_the_original_computes(
    case: str, channels: tuple[int, int], options: dict[str, int], graph: GraphName, original: str
) -> None:
    arrays = oracle("smin_block.npz")
    block = Block(*channels, 3, **options)  # type: ignore[arg-type]
    keys = {f"{name} {tuple(value.shape)}" for name, value in block.state_dict().items()}
    assert keys == set(arrays[f"{case}/state_keys"].tolist())
    A_KVV = torch.tensor(adjacency(graph), dtype=torch.float32)
    with torch.no_grad():
        out = fill(block, GAINS)(torch.from_numpy(arrays[f"{case}/x"]), A_KVV, None, None)
    np.testing.assert_allclose(out.numpy(), arrays[f"{case}/{original}/y"], rtol=0, atol=1e-5)


@needs_shared
def test_names_and_shapes_of_the_backbone_and_the_weight_rule_are_those_of_the_original() -> None:
    manifest = json.loads((SHARED / "oracles" / "manifest_stgcn.json").read_text())["params"]
    wanted = {entry["name"]: tuple(entry["shape"]) for entry in manifest}
    ours = {name: tuple(value.shape) for name, value in STGCN().state_dict().items() if name != "A"}
    assert ours == {name: shape for name, shape in wanted.items() if not name.startswith("fcn.")}
    values = weights_by_rule(wanted, GAINS)
    for entry in manifest:
        total = values[entry["name"]].double().sum().item()
        assert total == pytest.approx(entry["sum_f64"], rel=1e-9, abs=1e-9), entry["name"]


def strong(**options: Any) -> SMIN:
    """A narrow network with everything beyond the paper, or with some of it."""
    every: dict[str, Any] = {"bones": True, "pooling": "mean+std", "mirror": True, "static": 0.3} if not options else {}
    model = SMIN(5, width=8, embedding_dim=16, **every, **options)
    fill(model.backbone, GAINS)
    nn.init.normal_(model.fc.weight)
    return model.eval()


def test_bones_are_ways_from_the_neighbour_toward_the_neck() -> None:
    x = clips()
    found = with_bones(x)
    assert found[:, :4].equal(x)
    for joint, parent in enumerate(PARENTS):
        assert found[:, 4:, :, joint].equal(x[:, :3, :, joint] - x[:, :3, :, parent])


def test_the_strong_network_embeds_to_unit_vectors_and_a_clip_alike_in_any_batch() -> None:
    model, x = strong(), clips()
    together = model.embed(x)
    assert together.shape == (B, model.embedding_dim)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(B))
    torch.testing.assert_close(model.embed(x[1:2])[0], together[1], rtol=0, atol=1e-6)


def test_padding_never_changes_the_strong_network() -> None:
    model, x = strong(), clips(frames=28)
    padded = torch.cat([x, torch.full((B, 4, 12, 14), 3.0)], dim=2)
    wanted = model.embed(x)
    torch.testing.assert_close(model.embed(padded, marked(40, *range(28, 40))), wanted, rtol=0, atol=1e-5)


def test_a_mirrored_clip_embeds_alike_where_both_are_averaged() -> None:
    model, x = strong(), clips()
    torch.testing.assert_close(model.embed(mirrored(x)), model.embed(x), rtol=0, atol=1e-5)
    model.mirror = False
    assert (model.embed(mirrored(x)) - model.embed(x)).abs().max() > 1e-3


def test_the_standard_deviation_over_time_follows_the_mean_and_vanishes_for_a_clip_that_repeats_itself() -> None:
    model, x = strong(pooling="mean+std"), clips()
    plain = small()
    features = model.backbone(x)
    assert features.shape == (B, 64)
    torch.testing.assert_close(features[:, :32], plain.backbone(x))
    assert (features[:, 32:] > 0.01).any()
    first = model.backbone(x, marked(T, *range(1, T)))
    assert first[:, 32:].max() < 0.01


def test_the_static_branch_has_its_share_of_a_squared_distance() -> None:
    torch.manual_seed(0)
    model, x = strong(static=0.3), clips()
    body = model.body
    assert body is not None
    body.fit(body.measures(clips(3).double()), np.arange(B))
    embedding, network = model.embed(x), small()
    network.load_state_dict(model.state_dict(), strict=False)
    apart = [torch.cdist(found, found).square() for found in (embedding, network.embed(x), body(x))]
    torch.testing.assert_close(apart[0], 0.7 * apart[1] + 0.3 * apart[2], rtol=1e-4, atol=1e-5)
