"""Networks that give every pixel a class, and where their weights come from."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from cv_lab.models.segmentation import Segmenter, SmallUNet, SmpNetwork, TorchvisionSegmentationNetwork

ENCODER = "mobilenetv3_small_050"


@pytest.mark.parametrize(
    "network",
    [
        SmallUNet(5, width=8, depth=2),
        SmpNetwork("Unet", ENCODER, decoder_channels=[32, 16, 16, 8, 8])(5),
        SmpNetwork("FPN", ENCODER)(5),
        SmpNetwork("DeepLabV3Plus", ENCODER)(5),
        SmpNetwork("UPerNet", "convnext_atto")(5),
        TorchvisionSegmentationNetwork("lraspp_mobilenet_v3_large")(5),
        TorchvisionSegmentationNetwork("deeplabv3_mobilenet_v3_large")(5),
    ],
    ids=["small_unet", "unet", "fpn", "deeplabv3+", "upernet over convnext", "lraspp", "deeplabv3"],
)
def test_logits_are_as_large_as_the_image(network: nn.Module) -> None:
    network.eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 3, 50, 70)).shape == (2, 5, 50, 70)
    assert sum(p.numel() for p in network.encoder.parameters()) > 0  # type: ignore[union-attr]


def test_small_unet_is_translated_with_its_input_and_learns_a_batch() -> None:
    torch.manual_seed(0)
    network = SmallUNet(2, width=8, depth=2)
    images = torch.randn(4, 3, 32, 32)
    target = (images.mean(1) > 0).long()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_encoder_takes_the_weights_of_a_file_of_another_head() -> None:
    torch.manual_seed(1)
    donor = timm.create_model(ENCODER, num_classes=7)
    torch.manual_seed(2)
    network = SmpNetwork("Unet", ENCODER)(5)
    network.start_from(donor.state_dict(), "a file")
    own = {key.removeprefix("model."): value for key, value in network.encoder.state_dict().items()}
    shared = [key for key in own if key in donor.state_dict()]
    assert len(shared) > 50
    assert all(torch.equal(own[key], donor.state_dict()[key]) for key in shared)


def test_encoder_whose_features_have_other_names_takes_weights_too() -> None:
    donor = timm.create_model("convnext_atto")
    network = SmpNetwork("FPN", "convnext_atto")(5)
    network.start_from(donor.state_dict(), "a file")
    assert torch.equal(network.encoder.model.stem_0.weight, donor.stem[0].weight)


def test_weights_of_another_network_are_refused() -> None:
    network = SmpNetwork("Unet", ENCODER)(5)
    with pytest.raises(ValueError, match="the weights in a file do not fit"):
        network.start_from(timm.create_model("resnet10t").state_dict(), "a file")
    with pytest.raises(ValueError, match="the weights in a file do not fit"):
        SmallUNet(5).start_from(network.state_dict(), "a file")


@pytest.mark.parametrize("make", [SmpNetwork(), TorchvisionSegmentationNetwork(), SmallUNet])
def test_a_segmenter_continues_from_one_of_other_classes(make: Callable[[int], Segmenter]) -> None:
    donor, network = make(3), make(5)
    network.start_from(donor.state_dict(), "a file")
    ours, theirs = network.state_dict(), donor.state_dict()
    same = [key for key in ours if ours[key].shape == theirs[key].shape and torch.equal(ours[key], theirs[key])]
    assert len(same) > 0.9 * len(ours)
    assert any(key not in same for key in ours)


def test_images_are_normalised_as_the_encoders_publisher_did() -> None:
    assert SmpNetwork(encoder="tf_efficientnet_lite0").preprocessing(pretrained=True).mean == (0.5, 0.5, 0.5)
    assert SmpNetwork(encoder="tf_efficientnet_lite0").preprocessing(pretrained=True).size is None
    assert SmpNetwork(encoder="tf_efficientnet_lite0").preprocessing(pretrained=False).mean is None  # the data set's


def test_torchvision_backbone_takes_a_classifiers_weights() -> None:
    import torchvision

    donor = torchvision.models.mobilenet_v3_large(weights=None)
    network = TorchvisionSegmentationNetwork()(5)
    network.start_from(donor.state_dict(), "a file")
    assert torch.equal(network.encoder.state_dict()["0.0.weight"], donor.features[0][0].weight)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: SmpNetwork("Unett", ENCODER)(5), "Unet"),
        (lambda: SmpNetwork("Unet", "no_such_net")(5), "timm has no network"),
        (lambda: TorchvisionSegmentationNetwork("fcn_resnet5")(5), "fcn_resnet50"),
    ],
)
def test_unknown_names_are_refused_with_similar_ones(make: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()  # type: ignore[operator]
