"""What is frozen stays as it is, whichever network or task holds it."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cv_lab.models.backbones import TorchvisionNetwork
from cv_lab.models.cut import CutNetwork
from cv_lab.models.freezing import Freezing
from cv_lab.models.pyramid import PyramidBackbone
from cv_lab.models.segmentation import SmallUNet
from cv_lab.models.small_resnet import SmallResNet
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation


class Droopy(nn.Module):
    """Convolution, BatchNorm and dropout in each of two stages, and a head."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Dropout(0.5)) for i in (3, 8)
        )
        self.head = nn.Linear(8, num_classes)

    @property
    def encoder(self) -> nn.Module:
        return self.stages

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return self.head(images.mean((2, 3)))


def cut(trained: int) -> tuple[nn.Module, nn.Module]:
    network = CutNetwork(Droopy(), partial(nn.Linear, out_features=3), trained_stages=trained, freeze_statistics=False)
    return network, network.backbone


def pyramid(trained: int) -> tuple[nn.Module, nn.Module]:
    network = PyramidBackbone(Droopy(), strides=(2, 4), channels=4, trained_stages=trained)
    return network, network.body.body


def segmentation(trained: int) -> tuple[nn.Module, nn.Module]:
    assert trained == 0
    task = SemanticSegmentation(
        lambda num_classes: Droopy(),
        ("a", "b"),
        nn.CrossEntropyLoss(),
        partial(torch.optim.SGD, lr=0.1),
        freeze_encoder=True,
    )
    return task, task.model.encoder


USERS = [(cut, 0), (cut, 1), (pyramid, 0), (pyramid, 1), (segmentation, 0)]


@pytest.mark.parametrize(("user", "trained"), USERS)
def test_each_user_freezes_parameters_statistics_and_dropout(
    user: Callable[[int], tuple[nn.Module, nn.Module]], trained: int
) -> None:
    whole, network = user(trained)
    whole.eval()
    whole.train()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    for _ in range(2):
        outputs = whole(torch.randn(4, 3, 16, 16) * 3 + 1)
        sum(
            value.square().mean() for value in (outputs.values() if isinstance(outputs, dict) else [outputs])
        ).backward()
        for parameter in whole.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.1 * parameter.grad
    changed = {name for name, value in whole.state_dict().items() if not torch.equal(value, before[name])}
    first, last = (network.get_submodule(f"stages.{n}" if hasattr(network, "stages") else n) for n in "01")
    names = {id(module): name for name, module in whole.named_modules()}
    assert not [name for name in changed if name.startswith(names[id(first)])]
    assert bool([name for name in changed if name.startswith(names[id(last)])]) == (trained == 1)
    assert not any(module.training for module in first.modules())
    assert all(module.training for module in last.modules()) == (trained == 1)


@pytest.mark.parametrize(("user", "trained"), USERS)
def test_evaluation_reaches_all(user: Callable[[int], tuple[nn.Module, nn.Module]], trained: int) -> None:
    whole, _ = user(trained)
    assert not any(module.training for module in whole.train().eval().modules())


def test_a_parameter_that_the_network_never_trains_stays_out() -> None:
    network = SmallResNet(3, width=4)
    network.stem[0][0].weight.requires_grad = False
    Freezing(network, trained_stages=-1)
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["stem.0.0.weight"]


def test_a_traced_network_that_is_frozen_drops_no_layers() -> None:
    """torchvision's stochastic depth is a function in the graph, whose mode is that of the whole network."""
    classifier = TorchvisionNetwork("efficientnet_b0")(num_classes=3)
    for module in classifier.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.5
    images = torch.randn(2, 3, 64, 64)
    for trained in (0, 1):
        torch.manual_seed(0)
        network = PyramidBackbone(classifier, (4, 8), 4, trained, freeze_statistics=True).train()
        assert torch.equal(network.body(images)["0"], network.body(images)["0"])


def test_too_many_stages_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(ValueError, match=r"SmallUNet has 5 stages, so 9 of them.*0 to 5"):
        Freezing(SmallUNet(3, width=4), trained_stages=9)
