"""Shapes of the networks, and names that do not exist."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.backbones import NamedNetwork, TimmNetwork, TorchvisionNetwork
from cv_lab.models.cut import heads_of
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.small_cnn import SmallCNN
from cv_lab.models.weights import start_from
from cv_lab.models.whitened_cnn import Whitening


@pytest.mark.parametrize("size", [32, 48, 64])
@pytest.mark.parametrize("make", [SmallCNN, ResNet9])
def test_own_networks_take_any_size(make: Callable[..., nn.Module], size: int) -> None:
    assert make(num_classes=7, width=8)(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "name", "size"),
    [
        (TorchvisionNetwork, "resnet18", 32),
        (TorchvisionNetwork, "mobilenet_v3_small", 32),
        (TorchvisionNetwork, "googlenet", 64),
        (TimmNetwork, "mobilenetv3_small_100", 32),
        (TimmNetwork, "resnet10t", 32),
    ],
)
def test_networks_by_name(make: type[NamedNetwork], name: str, size: int) -> None:
    network = make(name)(num_classes=7).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "name", "suggested"),
    [(TorchvisionNetwork, "resnet81", "resnet18"), (TimmNetwork, "mobilenetv3_smal", "mobilenetv3_small")],
)
def test_an_unknown_name_is_told_with_its_neighbours(make: type[NamedNetwork], name: str, suggested: str) -> None:
    with pytest.raises(ValueError, match=suggested):
        make(name)


@pytest.mark.parametrize("make", [TorchvisionNetwork("vit_b_16", 8), TimmNetwork("vit_tiny_patch16_224", 8)])
def test_an_image_smaller_than_a_patch_is_told(make: NamedNetwork) -> None:
    with pytest.raises(ValueError, match=r"model\.image_size=8 pixels.*published for 224"):
        make(num_classes=7)


def test_preprocessing_is_the_published_one_with_pretrained_weights_alone() -> None:
    pretrained = TimmNetwork("tf_efficientnet_lite0", weights="default").preprocessing
    assert pretrained == Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224, "bicubic")
    assert TorchvisionNetwork("resnet18", 128, "default").preprocessing.size == 128
    assert TorchvisionNetwork("resnet18").preprocessing.size is None  # any size will do
    assert TorchvisionNetwork("vit_b_16").preprocessing.size == 224
    assert TorchvisionNetwork("resnet18").preprocessing.mean is None  # the data set's own


def test_position_embeddings_are_interpolated_to_another_size() -> None:
    for large, small in (
        (TimmNetwork("vit_tiny_patch16_224"), TimmNetwork("vit_tiny_patch16_224", 64)),
        (TorchvisionNetwork("vit_b_16"), TorchvisionNetwork("vit_b_16", 64)),
    ):
        network = small(num_classes=7)
        state = small.adapt(large(num_classes=7).state_dict())
        start_from(network, state, heads_of(network), "a file")


def test_weights_that_cannot_be_downloaded_are_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(TimmNetwork, "download", fail)
    with pytest.raises(ValueError, match=r"no network.*weights=FILE.*weights=none"):
        TimmNetwork("resnet18").default_weights()


def test_whitening_is_computed_in_full_precision() -> None:
    # Smooth images: of their patches most components have next to no variance, less than bfloat16 resolves.
    smooth = torch.nn.functional.interpolate(torch.randn(64, 3, 4, 4), (32, 32), mode="bilinear")
    plain, mixed = Whitening(), Whitening()
    plain.fit(smooth)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.fit(smooth)
    assert mixed.weight.isfinite().all()
    torch.testing.assert_close(mixed.weight, plain.weight)


def test_whitening_is_fitted_once_and_follows_what_is_loaded() -> None:
    images, others = torch.randn(8, 3, 16, 16), torch.rand(8, 3, 16, 16)
    layer = Whitening()
    unfitted = copy.deepcopy(layer.state_dict())
    layer(images)
    fitted = copy.deepcopy(layer.state_dict())
    assert fitted["fitted"]
    layer(others)
    assert torch.equal(layer.weight, fitted["weight"])

    continued = Whitening()
    continued.load_state_dict(fitted)
    continued(others)
    assert torch.equal(continued.weight, fitted["weight"])

    layer.load_state_dict(unfitted)
    assert not layer.eval()(images).equal(continued(images))  # evaluation fits nothing
    layer.train()(images)
    assert torch.equal(layer.weight, fitted["weight"])
