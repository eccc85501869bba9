"""What SSIN can have beside the published network."""

import torch

from sptskm.models import SSIN

SMALL = {"depths": (1, 1, 1, 1), "width": 4, "embedding_dim": 8}
FRAMES, MASKS = torch.rand(3, 2, 3, 64, 32), torch.rand(3, 2, 64, 32)


def made(**options):
    torch.manual_seed(0)
    return SSIN(5, **SMALL, **options)


def test_frames_are_brought_to_imagenets_statistics_and_no_weight_is_added():
    plain, scaled = made(), made(imagenet=True)
    assert plain.state_dict().keys() == scaled.state_dict().keys()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (FRAMES - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected, found = (network.eval().embed(frames, MASKS) for network, frames in ((plain, by_hand), (scaled, FRAMES)))
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_last_stride_of_one_gives_maps_of_twice_the_size():
    sizes = []
    for stride in (2, 1):
        network = made(last_stride=stride)
        images = FRAMES.flatten(0, 1)
        sizes.append([tuple(trunk(images).shape[2:]) for trunk in (network.img_base, network.mask_base)])
        assert network(FRAMES, MASKS).embedding.shape == (3, 24)
    assert sizes == [[(2, 1)] * 2, [(4, 2)] * 2]


def test_the_generalised_mean_is_the_mean_for_one_and_near_the_maximum_for_many():
    network, x = made(spatial_pooling="gem"), torch.rand(2, 3, 4, 5)
    assert network.exponents.tolist() == [3, 3, 3]
    assert torch.allclose(network._pool(x, 0), x.pow(3).mean((2, 3)).pow(1 / 3))
    with torch.no_grad():
        network.exponents[:] = torch.tensor([1.0, 200.0, 3.0])
    assert torch.allclose(network._pool(x, 0), x.mean((2, 3)), atol=1e-5)
    assert torch.allclose(network._pool(x, 1), x.amax((2, 3)), atol=0.02)
    network(FRAMES, MASKS).logits.glob.square().sum().backward()
    assert network.exponents.grad.isfinite().all()
