"""How networks are divided into stages."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from cv_lab.models.cut import CutNetwork
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.stages import stages

# Each with its last block, and the number of stages.
BLOCKS = [
    ("torchvision/resnet18", "layer4", 5),
    ("torchvision/vit_b_16", "encoder.layers.encoder_layer_11", 13),
    ("torchvision/swin_t", "features.7", 8),
    ("torchvision/convnext_tiny", "features.7", 8),
    ("torchvision/efficientnet_b0", "features.7", 8),  # and the last convolution, features.8
    ("torchvision/mobilenet_v2", "features.17", 18),
    ("torchvision/mobilenet_v3_large", "features.15", 16),  # and features.16, classifier.0
    ("torchvision/shufflenet_v2_x1_0", "stage4", 4),  # and conv5
    ("torchvision/densenet121", "features.denseblock4", 8),
    ("torchvision/maxvit_t", "blocks.3", 6),
    ("torchvision/alexnet", "classifier.4", 7),  # each layer is a stage
    ("torchvision/vgg11", "classifier.3", 10),
    ("timm/twins_svt_small", "blocks.3", 4),  # and pos_block.3
    ("timm/twins_pcpvt_small", "blocks.3", 4),
    ("timm/fastvit_t8", "stages.3", 7),  # and final_conv
    ("timm/vit_base_patch16_siglip_224", "blocks.11", 13),  # and attn_pool
    ("timm/tf_efficientnet_lite0", "blocks.6", 8),  # and conv_head
    ("timm/mobilenetv3_large_100", "blocks.5", 7),  # and blocks.6, conv_head
    ("timm/inception_next_atto", "stages.3", 5),  # and head.fc1
    ("timm/swin_tiny_patch4_window7_224", "layers.3", 5),
    ("timm/convnext_atto", "stages.3", 5),
    ("timm/crossvit_tiny_240", "blocks.2", 6),
]


@pytest.mark.parametrize(("name", "block", "count"), BLOCKS)
def test_one_trained_stage_is_at_least_the_last_block(name: str, block: str, count: int) -> None:
    library, _, name = name.partition("/")
    with torch.device("meta"):
        make = timm.create_model if library == "timm" else torchvision.models.get_model
        whole = make(name, num_classes=7)
        network = CutNetwork(whole, nn.Identity, trained_stages=1)
    assert network.freezing.count == count
    learns = {id(p) for p in network.backbone.parameters() if p.requires_grad}
    assert learns >= {id(p) for p in network.backbone.get_submodule(block).parameters()}
    assert learns == {id(p) for p in network.freezing.parameters(1)}
    assert not all(p.requires_grad for p in network.backbone.parameters())


def test_what_follows_the_last_block_trains_with_it() -> None:
    with torch.device("meta"):
        twins = stages(timm.create_model("twins_svt_small"))
        siglip = stages(timm.create_model("vit_base_patch16_siglip_224"))
    for number in range(4):
        assert all(twins[f"{part}.{number}"] == number for part in ("patch_embeds", "blocks", "pos_block"))
    assert twins["norm"] == 3
    assert siglip["attn_pool"] == siglip["attn_pool.mlp.fc1"] == siglip["norm"] == siglip["blocks.11.mlp"] == 12


def test_stages_follow_the_names_of_blocks() -> None:
    found = stages(torchvision.models.resnet18())
    assert [found[name] for name in ("conv1", "bn1", "layer1", "layer2.0.conv1", "layer4.1.bn2")] == [0, 0, 1, 2, 4]
    found = stages(ResNet9(num_classes=3, width=8))
    assert [found[f"features.{n}"] for n in range(6)] == [0, 1, 2, 3, 4, 5]


def test_parameters_that_a_network_holds_fixed_stay_fixed() -> None:
    body = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    body[0].weight.requires_grad_(False)
    network = CutNetwork(body, nn.Identity, trained_stages=-1)
    assert not network.backbone[0].weight.requires_grad
    assert network.backbone[0].bias.requires_grad
    network.train_stages(0)
    network.train_stages(-1)
    assert not network.backbone[0].weight.requires_grad
