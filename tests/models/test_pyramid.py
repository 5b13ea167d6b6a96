"""Features of timm's networks are those that timm takes, under the names that the classifier gives them."""

import pytest
import timm
import torch

from cv_lab.models.backbones import TimmNetwork
from cv_lab.models.mask_rcnn import LightMaskRCNN
from cv_lab.models.pyramid import PyramidBackbone

SMALL = ["test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"]


def widths(network: PyramidBackbone) -> list[int]:
    return [block[0].in_channels for block in network.fpn.inner_blocks]  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", SMALL)
def test_features_are_those_of_features_only(name: str) -> None:
    torch.manual_seed(0)
    classifier = timm.create_model(name, num_classes=3)
    reference = timm.create_model(name, features_only=True, feature_cls="getter").eval()
    reference.model.load_state_dict(classifier.state_dict(), strict=False)
    strides = sorted({info["reduction"] for info in classifier.feature_info})
    network = PyramidBackbone(classifier, strides, 4).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours = list(network.body(images).values())
        theirs = {64 // value.shape[2]: value for value in reference(images)}
    assert [64 // value.shape[2] for value in ours] == strides == sorted(theirs)
    assert all(torch.equal(value, theirs[stride]) for stride, value in zip(strides, ours, strict=True))


def test_efficientnet_gives_its_narrow_channels() -> None:
    with torch.device("meta"):
        network = PyramidBackbone(timm.create_model("tf_efficientnet_lite0"), (4, 8, 16, 32), 4)
    assert widths(network) == [24, 40, 112, 320]


@pytest.mark.parametrize("name", [*SMALL, "test_vit"])
def test_all_that_is_left_of_the_classifier_is_used(name: str) -> None:
    make = TimmNetwork(name, image_size=64 if name == "test_vit" else None)
    strides = [16] if name == "test_vit" else [8, 16]
    segmenter = LightMaskRCNN(make, strides=strides, channels=4, anchor_sizes=[16] * (len(strides) + 1))(num_classes=2)
    donor = make(num_classes=5)
    segmenter.start_from(donor.state_dict(), "a file")
    own = segmenter.extractor.state_dict()
    assert len(own) > 5
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in own.items())
    sum(value.sum() for value in segmenter.network.backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    unused = [key for key, p in segmenter.extractor.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_a_stride_that_a_vision_transformer_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"VisionTransformer has no features of stride 4, 8, 32: .* out of \[16\]"):
        LightMaskRCNN(TimmNetwork("test_vit"))(num_classes=2)


@pytest.mark.slow
def test_swin_can_be_cut() -> None:
    make = TimmNetwork("swin_tiny_patch4_window7_224", image_size=64)
    segmenter = LightMaskRCNN(make, channels=4, trained_stages=1)(num_classes=2)
    assert widths(segmenter.network.backbone) == [96, 192, 384, 768]  # type: ignore[arg-type]
    images = torch.randn(1, 3, 64, 64)
    levels = segmenter.train().network.backbone(images)
    assert [tuple(value.shape[2:]) for value in levels.values()] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    donor = make(num_classes=5)
    segmenter.start_from(donor.state_dict(), "a file")
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in segmenter.extractor.state_dict().items())
    trained = {name.split(".")[1] for name, p in segmenter.extractor.named_parameters() if p.requires_grad}
    assert trained == {"3"}
