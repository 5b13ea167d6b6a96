"""Where networks are cut, and that what lies below stays as it is."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cv_lab.models.backbones import NamedNetwork, TimmNetwork, TorchvisionNetwork
from cv_lab.models.cut import CutNetwork, copy_to_meta, flops, head_of, stages
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.small_cnn import SmallCNN

HEAD = partial(nn.Linear, out_features=5)
NETWORKS = [
    (TorchvisionNetwork("alexnet"), 4096, 7),
    (TorchvisionNetwork("vgg11"), 4096, 10),
    (TorchvisionNetwork("resnet18"), 512, 5),
    (TorchvisionNetwork("efficientnet_b0"), 1280, 9),
    (TorchvisionNetwork("vit_b_16"), 768, 13),
    (TimmNetwork("tf_efficientnet_lite0"), 1280, 8),
    (TimmNetwork("vit_tiny_patch16_224"), 192, 13),
]


@pytest.mark.parametrize(("make", "width", "count"), NETWORKS, ids=lambda value: getattr(value, "name", None))
def test_networks_of_each_family_are_cut_below_their_head(make: NamedNetwork, width: int, count: int) -> None:
    network = CutNetwork(make(num_classes=5), HEAD)
    size = make.published().size
    assert size is not None
    image = torch.empty(1, 3, size, size, device="meta")
    meta = copy_to_meta(network)
    assert isinstance(meta, CutNetwork)
    assert meta.features(image).shape == (1, width)
    assert meta(image).shape == (1, 5)
    assert network.stage_count == count


def test_networks_of_two_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="2 heads, head and head_dist"):
        head_of(TimmNetwork("deit_tiny_distilled_patch16_224")(num_classes=5))


def test_alexnet_is_cut_where_the_report_trained() -> None:
    name, head = head_of(TorchvisionNetwork("alexnet")(num_classes=1000))
    assert name == "classifier.6"
    assert head.weight.shape == (1000, 4096)


def test_stages_follow_the_names_of_blocks() -> None:
    found = stages(TorchvisionNetwork("resnet18")(num_classes=5))
    assert [found[name] for name in ("conv1", "bn1", "layer1", "layer2.0.conv1", "layer4.1.bn2")] == [0, 0, 1, 2, 4]
    own = CutNetwork(ResNet9(num_classes=3, width=8), HEAD)
    assert own.width == 64
    assert CutNetwork(SmallCNN(num_classes=3, width=8), HEAD).width == 256


def test_too_many_stages_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(ValueError, match=r"5 stages, so 9 of them.*0 to 5"):
        CutNetwork(TorchvisionNetwork("resnet18")(num_classes=5), HEAD, trained_stages=9)


def train_a_little(network: CutNetwork) -> dict[str, Tensor]:
    """Three steps at a high learning rate on everything that can learn; the state before them."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.eval()
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, weight_decay=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 32, 32) * 3 + 1).logsumexp(1).sum().backward()
        optimizer.step()
    return before


SMALL = [TimmNetwork("test_resnet"), TimmNetwork("test_vit", image_size=32), TorchvisionNetwork("mobilenet_v3_small")]


@pytest.mark.parametrize("make", SMALL, ids=lambda make: make.name)
@pytest.mark.parametrize("trained", [0, 1])
def test_frozen_means_bit_equal_parameters_and_buffers(make: NamedNetwork, trained: int) -> None:
    network = CutNetwork(make(num_classes=5), HEAD, trained_stages=trained)
    before = train_a_little(network)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    frozen = {f"backbone.{name}" for name, _ in network.backbone.named_modules() if network.is_frozen(name)}
    assert not {key for key in changed if key.rpartition(".")[0] in frozen}
    assert {"head.weight", "head.bias"} <= changed
    assert (trained == 0) == all(key.startswith("head.") for key in changed)
    assert not any("running" in key or "num_batches" in key for key in changed)


def test_statistics_of_trained_stages_move_if_asked() -> None:
    network = CutNetwork(TimmNetwork("test_resnet")(num_classes=5), HEAD, trained_stages=1, freeze_statistics=False)
    before = train_a_little(network)
    moved = [key for key, value in network.state_dict().items() if not torch.equal(value, before[key])]
    assert any("running_mean" in key for key in moved)
    assert all("layer4" in key or key.startswith("head.") for key in moved)


def test_dropout_below_the_cut_is_silent_unless_asked_for() -> None:
    images = torch.randn(2, 3, 64, 64)
    for active in (False, True):
        network = CutNetwork(TorchvisionNetwork("alexnet")(num_classes=5), HEAD, dropout_below=active).train()
        assert torch.equal(network.features(images), network.features(images)) != active


def test_features_and_images_give_the_same_logits() -> None:
    network = CutNetwork(TimmNetwork("test_resnet")(num_classes=5), HEAD).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(network.features(images)), network(images))


def test_flops_count_backbone_and_head_without_running_them() -> None:
    network = CutNetwork(SmallCNN(num_classes=3, width=8), HEAD)
    assert flops(network, (1, 3, 32, 32)) == flops(network.backbone, (1, 3, 32, 32)) + 2 * 256 * 5


def test_a_network_that_takes_no_images_of_a_size_is_told() -> None:
    network = TorchvisionNetwork("inception_v3", 32)(num_classes=2)
    with pytest.raises(ValueError, match=r"no images of 32 x 32 pixels \(RuntimeError.*model\.image_size=N"):
        flops(network, (1, 3, 32, 32))
