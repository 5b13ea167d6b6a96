"""Shapes of the networks, and names that do not exist."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.backbones import NamedNetwork, TimmNetwork, TorchvisionNetwork, preprocessing_of
from cv_lab.models.cut import heads_of
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.segmentation import SmpNetwork
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
    pretrained = TimmNetwork("tf_efficientnet_lite0").preprocessing(pretrained=True)
    assert pretrained == Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224, "bicubic")
    assert TorchvisionNetwork("resnet18", 128).preprocessing(pretrained=True).size == 128
    assert TorchvisionNetwork("resnet18").preprocessing(pretrained=False).size is None  # any size will do
    assert TorchvisionNetwork("vit_b_16").preprocessing(pretrained=False).size == 224
    assert TorchvisionNetwork("resnet18").preprocessing(pretrained=False).mean is None  # the data set's own


def test_a_tag_chooses_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or nn.Linear(1, 1))
    TimmNetwork("vit_base_patch16_224.augreg_in1k").default_weights()
    assert asked == [("vit_base_patch16_224.augreg_in1k", {"pretrained": True})]


def test_a_tag_chooses_normalisation() -> None:
    clip = TimmNetwork("vit_base_patch16_clip_224.openai").preprocessing(pretrained=True).mean
    assert clip == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert TimmNetwork("resnet18.a1_in1k")(num_classes=3, pretrained=True).fc.weight.shape == (3, 512)
    assert SmpNetwork(encoder="resnet18.a1_in1k").preprocessing(pretrained=True).mean == (0.485, 0.456, 0.406)


def test_a_tag_that_means_nothing_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no weights 'a9' of resnet18: give the name resnet18 or one of .*18\.a1_in1k"
    ):
        TimmNetwork("resnet18.a9")
    with pytest.raises(ValueError, match=r"weights=none trains from scratch: give the name resnet18, or weights=def"):
        TimmNetwork("resnet18.a1_in1k")(num_classes=3)


def test_weights_of_a_trial_bring_its_normalisation(tmp_path: Path) -> None:
    used = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None, "bicubic")
    torch.save({"state_dict": {}, "hyper_parameters": {"preprocessing": used.describe()}}, tmp_path / "best.ckpt")
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "published.pt")
    network, own, trial = TimmNetwork("resnet18"), str(tmp_path / "published.pt"), str(tmp_path / "best.ckpt")
    assert preprocessing_of(network, own) == preprocessing_of(network, "default") == network.preprocessing(True)
    assert preprocessing_of(network, "none") == network.preprocessing(False)
    assert preprocessing_of(network, trial) == used
    assert preprocessing_of(TimmNetwork("resnet18", 128), trial).size == 128
    assert preprocessing_of(TimmNetwork("vit_tiny_patch16_224"), trial).size == 224
    assert preprocessing_of(SmpNetwork(), trial) == used
    assert preprocessing_of(SmallCNN, trial) == used
    assert preprocessing_of(SmallCNN, own) == Preprocessing()
    larger = replace(used, size=64)
    torch.save({"state_dict": {}, "hyper_parameters": {"preprocessing": larger.describe()}}, tmp_path / "best.ckpt")
    assert preprocessing_of(network, trial) == larger
    assert preprocessing_of(SmpNetwork(), trial) == used  # whose images are never scaled


def test_position_embeddings_are_interpolated_to_another_size() -> None:
    for large, small in (
        (TimmNetwork("vit_tiny_patch16_224"), TimmNetwork("vit_tiny_patch16_224", 64)),
        (TorchvisionNetwork("vit_b_16"), TorchvisionNetwork("vit_b_16", 64)),
    ):
        network = small(num_classes=7)
        state = small.adapt(large(num_classes=7).state_dict())
        start_from(network, state, "a file", heads_of(network))


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
