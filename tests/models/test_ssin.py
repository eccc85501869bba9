"""SSIN on a small trunk. Legend: B clips, T frames, C channels, H rows, W columns."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.oracles import ATTENTION_GAIN, GAINS, SHARED, fill, needs_shared, oracle, weights_by_rule
from torch import Tensor, nn

from sptskm.models import SSIN
from sptskm.models.attention import CrossAttention, SpaceTimeAttention
from sptskm.models.resnet import MaskLayer, ResidualLayer, ResNet, WideConv
from sptskm.models.ssin import Variant

VARIANTS: tuple[Variant, ...] = ("2d", "3d")
PARTS = {"2d": 3, "3d": 2}
FULL_SIZE = {"2d": (604, 198_031_155), "3d": (619, 221_322_550)}
B, T, H, W = 3, 2, 64, 32


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(variant: Variant = "2d", **options: object) -> SSIN:
    """A network of the published shape with few channels, its attention switched on."""
    settings = {"depths": (1, 1, 1, 1), "width": 8, "embedding_dim": 16, **options}
    model = SSIN(5, variant, **settings)  # type: ignore[arg-type]
    for block in attentions(model):
        nn.init.constant_(block.gamma, 2.0)
    return model.eval()


def attentions(model: SSIN) -> tuple[nn.Module, nn.Module, nn.Module]:
    return model.attenblock0, model.attenblock1, model.attenblock2


def clips(seed: int = 0, batch: int = B, height: int = H, width: int = W) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    frames = torch.rand(batch, T, 3, height, width, generator=rng)
    return frames, (torch.rand(batch, T, height, width, generator=rng) > 0.5).float()


@pytest.fixture(scope="module", params=VARIANTS)
def full(request: pytest.FixtureRequest) -> SSIN:
    """The paper's network without any memory behind it."""
    with torch.device("meta"):
        return SSIN(625, request.param)


def test_the_full_network_has_the_published_number_of_entries_and_elements(full: SSIN) -> None:
    state = full.state_dict()
    assert (len(state), sum(value.numel() for value in state.values())) == FULL_SIZE[full.variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_embeddings_have_unit_length_and_the_promised_dimension(variant: Variant) -> None:
    model = small(variant)
    embedding = model.embed(*clips())
    assert embedding.shape == (B, PARTS[variant] * 16) == (B, model.embedding_dim)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(B))


def test_the_papers_embeddings_are_3072_and_2048_long(full: SSIN) -> None:
    assert full.embedding_dim == {"2d": 3072, "3d": 2048}[full.variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_gets_three_logits_and_the_embedding_of_embed(variant: Variant) -> None:
    model = small(variant)
    output = model(*clips())
    assert [logits.shape for logits in output.logits] == [(B, 5)] * 3
    torch.testing.assert_close(output.embedding, model.embed(*clips()))
    assert not torch.equal(output.logits.image, output.logits.glob)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_embeds_alike_alone_and_in_any_batch(variant: Variant) -> None:
    model, (frames, masks) = small(variant), clips()
    together = model.embed(frames, masks)
    alone = torch.cat([model.embed(frames[i : i + 1], masks[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-3, "else every clip embeds alike"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_frames_does_not_matter_but_their_content_does(variant: Variant) -> None:
    model, (frames, masks) = small(variant), clips()
    embedding = model.embed(frames, masks)
    torch.testing.assert_close(model.embed(frames.flip(1), masks.flip(1)), embedding, rtol=0, atol=1e-6)
    assert (model.embed(frames[:, :1], masks[:, :1]) - embedding).abs().max() > 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_mask_reaches_the_global_branch(variant: Variant) -> None:
    model, (frames, masks) = small(variant), clips()
    with_mask, inverted = model._branches(frames, masks), model._branches(frames, 1 - masks)
    assert (with_mask.glob - inverted.glob).abs().max() > 1e-6
    assert (with_mask.mask - inverted.mask).abs().max() > 1e-3
    torch.testing.assert_close(with_mask.image, inverted.image)


def test_only_the_2d_variant_embeds_the_mask_branch() -> None:
    for variant, seen in (("2d", True), ("3d", False)):
        model = small(variant)  # type: ignore[arg-type]
        before = model.embed(*clips())
        nn.init.constant_(model.mask_feat_bn.bias, 7.0)
        assert torch.equal(before, model.embed(*clips())) is not seen


def test_mean_pooling_differs_from_max_pooling_but_not_for_a_single_frame() -> None:
    by_max, by_mean = small(pooling="max"), small(pooling="mean")
    by_mean.load_state_dict(by_max.state_dict())
    frames, masks = clips()
    assert (by_max.embed(frames, masks) - by_mean.embed(frames, masks)).abs().max() > 1e-4
    torch.testing.assert_close(by_max.embed(frames[:, :1], masks[:, :1]), by_mean.embed(frames[:, :1], masks[:, :1]))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(128, 64), (97, 100), (32, 32)])
def test_any_frame_size_will_do(variant: Variant, size: tuple[int, int]) -> None:
    embedding = small(variant).embed(*clips(height=size[0], width=size[1]))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(B))


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_starts_switched_off_and_only_gamma_learns_in_the_first_step(variant: Variant) -> None:
    model = SSIN(5, variant, depths=(1, 1, 1, 1), width=8, embedding_dim=16, dropout=0)
    model.train()(*clips()).logits.glob.square().sum().backward()
    for block in attentions(model):
        assert block.gamma.item() == 0
        assert block.gamma.grad.abs().item() > 0
        inner = {name: p.grad for name, p in block.named_parameters() if not name.startswith(("gamma", "W_z"))}
        assert len(inner) == (10 if variant == "2d" else 8)
        assert all(grad is None or not grad.any() for grad in inner.values())


def test_once_gamma_is_not_zero_every_attention_layer_learns_except_the_unused_f_of_3d() -> None:
    for block, unused in ((CrossAttention(8, 4), set()), (SpaceTimeAttention(8), {"f.weight", "f.bias"})):
        nn.init.constant_(block.gamma, 2.0)
        shape = (2, 8, 4, 2) if isinstance(block, CrossAttention) else (2, 8, 2, 4, 2)
        block(torch.rand(shape), torch.rand(shape)).square().sum().backward()
        without = {name for name, p in block.named_parameters() if p.grad is None}
        assert without == unused
        learning = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-8}
        assert {"g.weight", "h.weight", "m.weight", "gamma"} <= learning


def test_f_of_the_3d_attention_is_frozen() -> None:
    model = small("3d")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"attenblock{i}.f.{leaf}" for i in range(3) for leaf in ("weight", "bias")}
    assert all(p.requires_grad for p in small("2d").parameters())


def test_2d_attention_with_gamma_zero_passes_the_image_through_and_3d_does_not() -> None:
    image, mask = torch.rand(2, 8, 4, 2), torch.rand(2, 8, 4, 2)
    torch.testing.assert_close(CrossAttention(8, 4)(image, mask), image)
    block = SpaceTimeAttention(8).eval()
    clip = torch.rand(2, 8, 3, 4, 2)
    assert (block(clip, clip) - clip).abs().max() > 1e-2
    torch.testing.assert_close(block(clip, clip), block.W_z(clip))


def test_3d_attention_lets_frames_of_a_clip_see_each_other_and_2d_does_not() -> None:
    for variant, sees in (("2d", False), ("3d", True)):
        model = small(variant)  # type: ignore[arg-type]
        x = torch.rand(B * T, 256, 2, 1)
        k = torch.rand(B * T, 256, 2, 1)
        changed = k.clone()
        changed[0] *= 3  # the mask of the first frame of the first clip
        before, after = (attend_without_pooling(model, x, y) for y in (k, changed))
        assert (before[1] - after[1]).abs().max().item() > 0 if sees else torch.equal(before[1], after[1])
        assert torch.equal(before[T:], after[T:]), "other clips never see it"


def attend_without_pooling(model: SSIN, x: Tensor, k: Tensor) -> Tensor:
    """The first attention block's output, (N, C, h, w) whatever the variant."""
    if model.variant == "2d":
        return model.attenblock0(x, k)
    x, k = (y.unflatten(0, (-1, T)).transpose(1, 2) for y in (x, k))
    return model.attenblock0(x, k).transpose(1, 2).flatten(0, 1)


def attended(block: nn.Module, x: Tensor, k: Tensor) -> Tensor:
    """The published attention of one image or clip, x and k (C, P), position by position."""

    def conv(layer: nn.Module, values: Tensor) -> Tensor:
        return layer.weight.flatten(1) @ values + layer.bias[:, None]

    is_2d = isinstance(block, CrossAttention)
    query, key, mask = conv(block.f if is_2d else block.h, x), conv(block.g, x), conv(block.h, k)
    rows = []
    for p in range(x.shape[1]):
        energy = torch.stack([query[:, p] @ key[:, q] for q in range(x.shape[1])])
        weights = energy.exp() / energy.exp().sum()
        rows.append(sum(weights[q] * mask[:, q] for q in range(x.shape[1])))
    mask_energy = torch.stack(rows, dim=1).exp()  # (C', P)
    product = conv(block.m, x) * mask_energy / mask_energy.sum(dim=1, keepdim=True)
    if is_2d:
        return block.gamma * conv(block.v, product) + x
    projected = block.W_z(x.view(1, -1, *x.shape[1:], 1, 1)).view_as(x)
    return block.gamma * product + projected


@pytest.mark.parametrize(("block", "shape"), [(CrossAttention(6, 4), (6, 3, 2)), (SpaceTimeAttention(6), (6, 2, 3, 2))])
def test_attention_is_the_published_arithmetic(block: nn.Module, shape: tuple[int, ...]) -> None:
    fill(block)  # gamma about 4, every bias and every running statistic in use
    x, k = torch.randn(2, *shape), torch.randn(2, *shape)
    wanted = torch.stack([attended(block, x[i].flatten(1), k[i].flatten(1)).view(shape) for i in range(2)])
    torch.testing.assert_close(block(x, k), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "shape"), [(CrossAttention(64, 8), (64, 8, 4)), (SpaceTimeAttention(64), (64, 2, 8, 4))]
)
def test_autocast_does_not_reach_the_attention(block: nn.Module, shape: tuple[int, ...]) -> None:
    """Its energies are in the hundreds here, at initialisation in the thousands: a step of bfloat16 is 2 and 16."""
    x, k = 20 * torch.randn(2, *shape), 20 * torch.randn(2, *shape)
    nn.init.ones_(block.gamma)
    with torch.no_grad():
        wanted = block.attention(x, k)
        with torch.autocast("cpu", torch.bfloat16):
            found, out = block.attention(x, k), block(x, k)
            rounded = block.attention(x.bfloat16(), k.bfloat16())
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-6)
    assert found.dtype == out.dtype == rounded.dtype == torch.float32
    assert block.double()(x.double(), k.double()).dtype == torch.float64


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_forward_pass_is_the_published_sequence_of_steps(variant: Variant) -> None:
    """One clip, frame by frame: attended features go into the global branch only."""
    model, (frames, masks) = small(variant), clips(batch=1)
    x, k = model.img_base(frames[0]), model.mask_base(torch.stack([masks[0]] * 3, dim=1))
    g = torch.zeros(())
    for level, attention in enumerate(attentions(model)):
        if level:
            x = (model.conv_layer1, model.conv_layer2)[level - 1](x)
            k = (model.mask_layer1, model.mask_layer2)[level - 1](k)
            g = (model.glob_layer1, model.glob_layer2)[level - 1](g)
        if variant == "2d":
            seen = torch.stack([attention(x[t : t + 1], k[t : t + 1])[0] for t in range(T)])
        else:
            seen = attention(x.transpose(0, 1)[None], k.transpose(0, 1)[None])[0].transpose(0, 1)
        g = g + torch.maximum(seen[0], seen[1])[None]
    image, mask, glob = (y.clamp(min=0).flatten(2).mean(dim=2) for y in (x, k, g))
    image, mask = model.img_feat_bn(model.fc_img(image)), model.mask_feat_bn(model.fc_mask(mask))
    parts = [image.max(dim=0).values, mask.max(dim=0).values, model.glob_feat_bn(model.fc_glob(glob))[0]]
    joined = torch.cat(parts if variant == "2d" else parts[::2])
    torch.testing.assert_close(model.embed(frames, masks)[0], joined / joined.norm(), rtol=0, atol=1e-6)


def test_initialisation_is_the_published_one() -> None:
    model = SSIN(50, "3d", depths=(1, 1, 1, 1), width=16, embedding_dim=512)
    assert model.conv_cls.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not model.conv_cls.bias.any()
    assert model.fc_img.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    conv = model.conv_layer1.layers[0].conv1.weight
    assert conv.std().item() == pytest.approx((2 / (conv.shape[0] * 9)) ** 0.5, rel=0.05)
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, nn.Conv3d))


@pytest.mark.parametrize(
    ("frames", "masks", "message"),
    [
        ((B, 3, H, W), (B, H, W), r"frames must be \(B, T, 3, H, W\), got \(3, 3, 64, 32\)"),
        ((B, T, H, W, 3), (B, T, H, W), r"frames must be \(B, T, 3, H, W\)"),
        ((B, T, 3, H, W), (B, T, W, H), r"masks must be \(3, 2, 64, 32\) beside these frames, got \(3, 2, 32, 64\)"),
    ],
)
def test_wrong_shapes_are_one_sentence(frames: tuple[int, ...], masks: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().embed(torch.zeros(frames), torch.zeros(masks))


def test_wrong_constructor_values_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="variants '2d' and '3d', not '4d'"):
        SSIN(5, "4d")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"four positive block counts, got \(1, 1\)"):
        ResNet((1, 1))


@needs_shared
@pytest.mark.parametrize(
    ("case", "block"),
    [
        ("CrossAttention_64_16", CrossAttention(64, 16)),
        ("SpaceTimeAtten_32", SpaceTimeAttention(32)),
        ("MaskConvBlock_16_8", MaskLayer(16, 8)),
        ("BasicResLayer_16_8_s2", ResidualLayer(16, 8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_blocks_compute_what_the_original_computes(case: str, block: nn.Module) -> None:
    arrays = oracle("ssin_blocks.npz")
    inputs = [torch.from_numpy(arrays[f"{case}/in{i}"]) for i in range(2) if f"{case}/in{i}" in arrays]
    keys = {f"{name} {tuple(value.shape)}" for name, value in block.state_dict().items()}
    assert keys == set(arrays[f"{case}/state_keys"].tolist())
    with torch.no_grad():
        out = fill(block)(*inputs).numpy()
    np.testing.assert_allclose(out, arrays[f"{case}/out"], rtol=0, atol=1e-5)


@needs_shared
def test_names_and_shapes_are_those_of_the_original(full: SSIN) -> None:
    manifest = json.loads((SHARED / "oracles" / f"manifest_ssin{full.variant}.json").read_text())["params"]
    wanted = {entry["name"]: tuple(entry["shape"]) for entry in manifest}
    assert {name: tuple(value.shape) for name, value in full.state_dict().items()} == wanted


@needs_shared
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_weight_rule_gives_the_check_values_of_the_original(variant: Variant) -> None:
    manifest = json.loads((SHARED / "oracles" / f"manifest_ssin{variant}.json").read_text())["params"]
    gains = (*GAINS, (ATTENTION_GAIN[variant], 0.25))
    # the largest entries take seconds and follow the same rule as the others
    entries = [entry for entry in manifest if np.prod(entry["shape"]) < 300_000]
    values = weights_by_rule({entry["name"]: tuple(entry["shape"]) for entry in entries}, gains)
    assert len(values) > 500
    for entry in entries:
        value = values[entry["name"]].double()
        assert value.sum().item() == pytest.approx(entry["sum_f64"], rel=1e-9, abs=1e-9), entry["name"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_silhouette_as_one_channel_is_three_equal_ones_in_value_and_gradient(variant: Variant) -> None:
    frames, masks = (x.double() for x in clips())
    found = []
    for channels in (1, 3):
        torch.manual_seed(0)
        model = small(variant).double().train()
        model.mask_base[0].register_forward_pre_hook(lambda _, given, c=channels: given[0].expand(-1, c, -1, -1))
        output = model(frames, masks)
        (output.logits.mask.square().sum() + output.embedding.sum()).backward()
        found.append((output.embedding, output.logits.mask, *(p.grad for p in model.parameters() if p.requires_grad)))
        assert model.mask_base[0].weight.shape == (8, 3, 7, 7), "the published shape, which checkpoints have"
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-9, atol=1e-12)


def test_a_convolution_with_more_weights_than_positions_is_a_product_of_the_same_numbers():
    torch.manual_seed(0)
    layer = WideConv(1024, 512, 3, 2, padding=1, bias=False)
    x = torch.randn(2, 1024, 5, 3, requires_grad=True)
    found, wanted = layer(x), nn.Conv2d.forward(layer, x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    rate = torch.randn_like(found)
    ways = [torch.autograd.grad(y, (x, layer.weight), rate) for y in (found, wanted)]
    for ours, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_small_networks_and_passes_without_gradient_keep_the_bits_of_a_convolution():
    small, large = WideConv(256, 128, 3, 2, padding=1, bias=False), WideConv(1024, 512, 3, 2, padding=1, bias=False)
    x = torch.randn(2, 256, 4, 2)
    assert torch.equal(small(x), nn.Conv2d.forward(small, x))
    x = torch.randn(2, 1024, 4, 2)
    with torch.inference_mode():
        assert torch.equal(large(x), nn.Conv2d.forward(large, x))
