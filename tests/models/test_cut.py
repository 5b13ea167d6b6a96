"""Where networks are cut, and that what lies below stays as it is."""

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from torch import Tensor, nn

from cv_lab.models.backbones import NamedNetwork, TimmNetwork, TorchvisionNetwork
from cv_lab.models.cut import CutNetwork, heads_of
from cv_lab.models.meta import copy_to_meta, flops
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.small_cnn import SmallCNN

HEAD = partial(nn.Linear, out_features=5)
NETWORKS = [
    (TorchvisionNetwork("alexnet"), 4096, 7),
    (TorchvisionNetwork("vgg11"), 4096, 10),
    (TorchvisionNetwork("resnet18"), 512, 5),
    (TorchvisionNetwork("efficientnet_b0"), 1280, 8),
    (TorchvisionNetwork("squeezenet1_1"), 512, 9),
    (TorchvisionNetwork("vit_b_16"), 768, 13),
    (TimmNetwork("tf_efficientnet_lite0"), 1280, 8),
    (TimmNetwork("vit_tiny_patch16_224"), 192, 13),
    (TimmNetwork("crossvit_tiny_240"), 96 + 192, 6),
    (TimmNetwork("deit_tiny_distilled_patch16_224"), 2 * 192, 13),
    (TimmNetwork("volo_d1_224"), 384, 11),
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
    assert network.freezing.count == count


# Small ones of families that differ in their heads; the last are of the lab.
FAMILIES: list[Callable[..., nn.Module]] = [
    *(TorchvisionNetwork(name) for name in (
        "alexnet", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5",
        "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_0",
        "squeezenet1_1",
    )),
    *(TimmNetwork(name) for name in (
        "test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet", "test_resnet", "test_vit",
        "crossvit_tiny_240", "deit_tiny_distilled_patch16_224", "dla46x_c", "dpn48b", "edgenext_xx_small",
        "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1_dist", "efficientvit_b0", "fastvit_t8",
        "hgnetv2_b0", "inception_next_atto", "iformer_t", "levit_128s", "levit_256d", "mobilenetv3_small_050",
        "pit_ti_distilled_224", "repvit_m1", "resnetv2_18", "shvit_s1", "starnet_s050", "swiftformer_xs",
        "volo_d1_224",
    )),
    ResNet9, SmallCNN,
]  # fmt: skip


def one_layer(heads: dict[str, nn.Linear | nn.Conv2d]) -> nn.Linear:
    """The linear layer that gives the mean of what `heads` give, of their inputs side by side."""
    weight = torch.cat([head.weight.flatten(1) for head in heads.values()], 1) / len(heads)
    layer = nn.Linear(weight.shape[1], len(weight))
    biases = [torch.zeros(len(weight)) if head.bias is None else head.bias for head in heads.values()]
    layer.load_state_dict({"weight": weight, "bias": sum(biases) / len(heads)})
    return layer


def is_small(make: Callable[..., nn.Module]) -> bool:
    """Whether it is the lab's, one of timm's networks for tests, or a quick one of torchvision."""
    return getattr(make, "name", "test_").startswith(("test_", "resnet18", "squeezenet", "mobilenet_v3_small"))


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=[] if is_small(make) else pytest.mark.slow) for make in FAMILIES],
    ids=lambda make: getattr(make, "name", None),
)
def test_the_old_head_on_the_features_gives_the_networks_own_logits(make: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    network = make(num_classes=7).eval()
    size = make.published().size if isinstance(make, NamedNetwork) and make.fixed_size() else 96
    assert size is not None
    images = torch.randn(2, 3, size, size)
    heads = heads_of(network)
    for head in heads.values():
        nn.init.normal_(head.weight, std=0.05)  # some start at 0
    with torch.inference_mode():
        logits = network(images)
        cut = CutNetwork(network, lambda width: one_layer(heads)).eval()
        tolerance = 1e-5 * max(1.0, logits.abs().max().item())
        torch.testing.assert_close(cut(images), logits, rtol=0, atol=tolerance)
        features = cut.features(images)
        assert features.shape == (2, cut.width)
        if not cut.has_tail():
            assert torch.equal(cut(features), cut(images))


def test_a_head_whose_helper_adds_to_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"VOLO adds .* use_aux_head=False"):
        heads_of(timm.create_model("volo_d1_224", num_classes=5))


def test_a_network_without_a_head_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="Qwen3VitEncoder ends in no linear layer"):
        heads_of(timm.create_model("qwen3_vit_88m_enc"))


def test_a_network_that_is_cut_in_a_wrong_place_is_told() -> None:
    class Odd(nn.Module):
        """Whose last layer by definition is not its head."""

        def __init__(self) -> None:
            super().__init__()
            self.head, self.gate = nn.Linear(4, 5), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.gate(x.mean((2, 3))))

    with pytest.raises(ValueError, match=r"Odd cannot be cut below gate: it then gives 5 features"):
        CutNetwork(Odd(), HEAD)(torch.zeros(1, 4, 2, 2))


def test_alexnet_is_cut_where_the_report_trained() -> None:
    ((name, head),) = heads_of(TorchvisionNetwork("alexnet")(num_classes=1000)).items()
    assert name == "classifier.6"
    assert head.weight.shape == (1000, 4096)


def test_own_networks_are_cut_below_their_head() -> None:
    assert CutNetwork(ResNet9(num_classes=3, width=8), HEAD).width == 64
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
    frozen = {f"backbone.{name}" for name, _ in network.backbone.named_modules() if network.freezing.is_frozen(name)}
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
