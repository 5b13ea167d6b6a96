"""Mask R-CNN over many backbones, and where its weights come from."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cv_lab.models.backbones import TimmNetwork, TorchvisionNetwork
from cv_lab.models.mask_rcnn import InstanceSegmenter, LightMaskRCNN, Operations, TorchvisionMaskRCNN
from cv_lab.models.resnet9 import ResNet9
from cv_lab.models.roi_align import MultiScaleRoIAlign
from cv_lab.models.small_resnet import SmallResNet

SMALL = partial(SmallResNet, width=8)


def light(backbone: Callable[..., nn.Module] = SMALL, classes: int = 3, **options: object) -> InstanceSegmenter:
    defaults = {"strides": (4, 8), "channels": 8, "box_channels": 16, "mask_layers": (8,), "proposals": 20}
    defaults |= {"anchor_sizes": (8, 16, 32), "box_samples": 16, "detections": 5}
    return LightMaskRCNN(backbone, **(defaults | options))(num_classes=classes)  # type: ignore[arg-type]


def batch() -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Two images, the second without objects."""
    masks = torch.zeros(1, 40, 48, dtype=torch.uint8)
    masks[:, 4:30, 8:36] = 1
    one = {"boxes": torch.tensor([[8.0, 4, 36, 30]]), "labels": torch.tensor([2]), "masks": masks}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": masks[:0]}
    return torch.randn(2, 3, 40, 48), [one, none]


@pytest.mark.parametrize(
    "backbone",
    [SMALL, partial(ResNet9, width=8), TimmNetwork("tf_efficientnet_lite0"), TorchvisionNetwork("mobilenet_v3_small")],
    ids=["small_resnet", "resnet9", "timm", "torchvision"],
)
def test_any_classifier_is_a_backbone(backbone: Callable[..., nn.Module]) -> None:
    network = light(backbone, box_score_thresh=0.0)
    images, targets = batch()
    losses = network.losses(images, targets)
    assert set(losses) == {"classifier", "box", "mask", "objectness", "rpn_box"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in network.parameters())
    (found, _) = network.eval()(images)
    assert found["boxes"].shape == (5, 4)
    assert found["masks"].shape == (5, 28, 28)
    assert 0 <= found["labels"].min() <= found["labels"].max() <= 2
    assert 0 <= found["masks"].min() <= found["masks"].max() <= 1


def test_mixed_precision_does_not_round_boxes() -> None:
    """In bfloat16 they would have whole pixels beyond 128."""
    torch.manual_seed(0)
    network = light(box_score_thresh=0.0, detections=50, proposals=200).eval()
    images = torch.randn(1, 3, 256, 256)
    boxes, losses = [], []
    for mixed in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            torch.manual_seed(0)
            masks = torch.zeros(1, 256, 256, dtype=torch.uint8)
            masks[:, 200:230, 200:230] = 1
            target = {"boxes": torch.tensor([[200.0, 200, 230, 230]]), "labels": torch.tensor([0]), "masks": masks}
            part, (found,) = network.losses_and_detections(images, [target])
            losses.append({name: value.double().item() for name, value in part.items()})
            assert {value.dtype for value in part.values()} == {torch.float32}
            boxes.append(found["boxes"])
    distance = (boxes[1][:, None] - boxes[0]).abs().amax(2).amin(1)  # of each box to the nearest of full precision
    assert distance.median() < 0.02
    assert losses[1] == pytest.approx(losses[0], rel=0.03, abs=1e-3)


def has_learnt(network: InstanceSegmenter, images: Tensor, targets: list[dict[str, Tensor]]) -> bool:
    with torch.no_grad():
        found, nothing = network.eval()(images)
    return (
        len(found["labels"]) > 0
        and int(found["labels"][0]) == 2
        and float(found["scores"][0]) > 0.5
        and torch.allclose(found["boxes"][0], targets[0]["boxes"][0], atol=4)
        and float((found["masks"][0] > 0.5).float().mean()) > 0.9
        and float(nothing["scores"].sum()) < float(found["scores"].sum())
    )


def test_it_learns_a_batch() -> None:
    """How many steps it takes differs by machine: samples are drawn, and one more or less tips the balance."""
    torch.manual_seed(0)
    network = light()
    images, targets = batch()
    assert not has_learnt(network, images, targets)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for step in range(400):
        optimizer.zero_grad()
        sum(network.train().losses(images, targets).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        if step % 20 == 19 and has_learnt(network, images, targets):
            return
    pytest.fail("the batch is not learnt after 400 steps")


def test_losses_in_evaluation_leave_the_network_in_evaluation() -> None:
    network = light().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, targets = batch()
    losses, found = network.losses_and_detections(images, targets)
    assert len(losses) == 5
    assert len(found) == 2
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_boxes_are_pooled_as_torchvision_pools_them() -> None:
    torch.manual_seed(0)
    names = ["0", "1", "2"]
    features = {str(i): torch.randn(3, 5, 320 >> i + 2, 256 >> i + 2, requires_grad=True) for i in range(3)}
    corners = [torch.rand(n, 2) * 250 - 5 for n in (7, 0, 9)]
    boxes = [torch.cat([xy, xy + torch.rand(len(xy), 2) ** 2 * 300 + 0.5], 1) for xy in corners]
    boxes[0][0] = torch.tensor([0.0, 0, 256, 320])  # of the coarsest level
    shapes = [(320, 256)] * 3
    ours = MultiScaleRoIAlign(names, 7, 2)(features, boxes, shapes)
    theirs = torchvision.ops.MultiScaleRoIAlign(names, 7, 2)(features, boxes, shapes)
    assert torch.allclose(ours, theirs, atol=1e-4)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((o * weights).sum(), list(features.values())) for o in (ours, theirs)]
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(*gradients, strict=True))


def test_backbone_starts_from_the_weights_of_its_classifier() -> None:
    classifier = SMALL(num_classes=10)
    network = light()
    network.start_from(classifier.state_dict(), "x.ckpt")
    own = network.extractor.state_dict()
    assert own
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in own.items())
    with pytest.raises(ValueError, match="do not fit SmallResNet"):
        network.start_from(SmallResNet(10, width=16).state_dict(), "x.ckpt")


def test_a_whole_network_gives_all_but_what_depends_on_the_classes() -> None:
    source, network = light(classes=5), light(classes=3)
    network.start_from(source.state_dict(), "x.ckpt")
    differs = [
        k
        for k, v in network.state_dict().items()
        if not torch.equal(v, source.state_dict().get(k, v + 1)[: len(v)] if v.ndim else v)
    ]
    assert all("box_predictor" in key or "mask_fcn_logits" in key for key in differs)
    same = light(classes=5)
    same.start_from(source.state_dict(), "x.ckpt")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in same.state_dict().items())


def test_without_masks_there_are_boxes_alone() -> None:
    source, network = light(), light(masks=False)
    assert len(list(network.parameters())) < len(list(source.parameters()))
    network.start_from(source.state_dict(), "x.ckpt")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(ValueError, match=r"x\.ckpt is of a network that detects boxes.*model\.masks=false"):
        source.start_from(network.state_dict(), "x.ckpt")
    images, targets = batch()
    losses, detections = network.eval().losses_and_detections(images, targets)
    assert set(losses) == set(network.parts) == {"classifier", "box", "objectness", "rpn_box"}
    assert all(set(one) == {"boxes", "labels", "scores"} for one in detections)
    with torch.device("meta"):
        Operations(light(masks=False))(torch.empty(1, 3, 64, 64))


def test_frozen_stages_keep_weights_and_statistics() -> None:
    network = light(trained_stages=1, freeze_statistics=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, targets = batch()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    sum(network.losses(images, targets).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    inside = {name for name in changed if ".backbone.body." in name}
    assert inside
    assert all("stages.1" in name and "running" not in name for name in inside)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strides": (4, 64)}, "no features of stride 64"),
        ({"anchor_sizes": (8, 16)}, "must have 3 entries"),
        ({"trained_stages": 9}, "stages"),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        light(**options)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_torchvisions_takes_its_published_weights(name: str) -> None:
    factory = TorchvisionMaskRCNN(name, detections=7)
    with torch.device("meta"):
        network = factory(num_classes=4, pretrained=True)
    published = torchvision.models.get_model(name, weights=None, weights_backbone=None).state_dict()
    if name == "maskrcnn_resnet50_fpn":  # its published batch normalisation counts no batches
        published = {key: value for key, value in published.items() if not key.endswith("num_batches_tracked")}
    state = factory.adapt(published)
    own = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    different = {key for key in own if key not in state or state[key].shape != own[key].shape}
    assert different == {key for key in own if "box_predictor" in key or "mask_fcn_logits" in key}
    assert state.keys() == own.keys()
    trained = {name for name, p in network.named_parameters() if p.requires_grad and ".body." in name}
    assert all("layer2" in key or "layer3" in key or "layer4" in key for key in trained)


def test_operations_are_counted_without_running_it() -> None:
    with torch.device("meta"):
        Operations(light())(torch.empty(1, 3, 64, 64))
