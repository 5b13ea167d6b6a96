"""Shapes of the networks, and names that do not exist."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cv_lab.models.backbones import timm_classifier, torchvision_classifier
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.small_cnn import SmallCNN


@pytest.mark.parametrize("size", [32, 48, 64])
@pytest.mark.parametrize("make", [SmallCNN, ResNet9])
def test_own_networks_take_any_size(make: Callable[..., nn.Module], size: int) -> None:
    assert make(num_classes=7, width=8)(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "name", "size"),
    [
        (torchvision_classifier, "resnet18", 32),
        (torchvision_classifier, "mobilenet_v3_small", 32),
        (torchvision_classifier, "googlenet", 64),
        (timm_classifier, "mobilenetv3_small_100", 32),
        (timm_classifier, "resnet10t", 32),
    ],
)
def test_networks_by_name(make: Callable[..., nn.Module], name: str, size: int) -> None:
    network = make(num_classes=7, name=name).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "name", "suggested"),
    [(torchvision_classifier, "resnet81", "resnet18"), (timm_classifier, "mobilenetv3_smal", "mobilenetv3_small")],
)
def test_an_unknown_name_is_told_with_its_neighbours(make: Callable[..., nn.Module], name: str, suggested: str) -> None:
    with pytest.raises(ValueError, match=suggested):
        make(num_classes=7, name=name)
