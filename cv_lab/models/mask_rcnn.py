"""Mask R-CNN (He et al., 2017): torchvision's over ResNet-50, and a light one over any classifier."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torchvision
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead

from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.backbones import NamedNetwork, NetworkFactory, preprocessing_of
from cv_lab.models.cut import heads_of
from cv_lab.models.pyramid import PartlyFrozen, PyramidBackbone
from cv_lab.models.roi_align import MultiScaleRoIAlign
from cv_lab.models.weights import fit_state_dict, keep_head, start_from
from cv_lab.training.losses import full_precision

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LOSSES = {  # torchvision's names, and ours
    "loss_classifier": "classifier",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "rpn_box",
}
CLASS_PARTS = ("network.roi_heads.box_predictor.", "network.roi_heads.mask_predictor.mask_fcn_logits.")

# What torchvision's MaskRCNN takes and uses here. It ignores other names without a word, and its resizing is not used.
OPTIONS = {*signature(MaskRCNN).parameters, *signature(FasterRCNN).parameters} - {
    *("kwargs", "backbone", "num_classes", "min_size", "max_size", "image_mean", "image_std")
}

Detections = dict[str, Tensor]
Targets = list[dict[str, Tensor]]


class InstanceSegmenter(nn.Module):
    """A Mask R-CNN of torchvision, for batches of images of one size that are normalised already.

    Given images, float (N, 3, H, W), it returns N dicts of the M objects found in each: "boxes", float32 (M, 4), x and
    y of the upper left and of the lower right in pixels; "labels", int64 (M,), from 0 to K - 1; "scores", float32 (M,),
    in 0..1, descending; and "masks", float32 (M, S, S), the probability that a cell of a grid over the box is the
    object.

    Args:
        network: of torchvision; its own resizing and normalisation are not used.
        classifier: makes the classifier that its backbone was cut from.
        extractor: what was cut from it.
    """

    def __init__(self, network: MaskRCNN, classifier: Callable[[], nn.Module], extractor: nn.Module) -> None:
        super().__init__()
        network.transform = None
        self.network, self.classifier = network, classifier
        self._extractor = [extractor]  # in a list, so that it is not registered twice
        # torchvision computes boxes in the precision of what the heads say: bfloat16 has whole pixels beyond 128.
        for head in (network.rpn.head, network.roi_heads.box_predictor, network.roi_heads.mask_predictor):
            head.register_forward_hook(lambda module, args, output: apply_to_collection(output, Tensor, full_precision))

    def forward(self, images: Tensor) -> list[Detections]:
        return self._detect(self._features(images), images)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The five losses, scalars, by name.

        Args:
            images: float (N, 3, H, W).
            targets: N dicts of "boxes", float32 (M, 4), "labels", int64 (M,), from 0 to K - 1, and "masks", uint8
                (M, H, W) of 0 and 1.
        """
        return self._losses(self._features(images), images, targets)

    def losses_and_detections(self, images: Tensor, targets: Targets) -> tuple[dict[str, Tensor], list[Detections]]:
        """What :meth:`losses` and the call give, for a network in evaluation mode, from one pass of the backbone."""
        assert not self.training
        features = self._features(images)
        return self._losses(features, images, targets), self._detect(features, images)

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        """Start from the weights `state`, read from `source`: of a Mask R-CNN or of its backbone's classifier.

        Raises:
            ValueError: if they are of neither.
        """
        if any(key.startswith("network.roi_heads.") for key in state):
            fit_state_dict(self, keep_head(self, state, *CLASS_PARTS), source)
            return
        classifier = self.classifier()
        start_from(classifier, state, heads_of(classifier), source)
        whole, extractor = classifier.state_dict(), self._extractor[0]
        extractor.load_state_dict({key: whole[key] for key in extractor.state_dict()})

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        features = self.network.backbone(images)
        # Boxes and what is pooled within them are computed in full precision, also where the backbone is not.
        return {level: full_precision(value) for level, value in features.items()}

    def _losses(self, features: dict[str, Tensor], images: Tensor, targets: Targets) -> dict[str, Tensor]:
        shifted = [target | {"labels": target["labels"] + 1} for target in targets]  # 0 is the background
        every = _as_list(images)
        with _branches(self.network, training=True):
            proposals, first = self.network.rpn(every, features, shifted)
            _, second = self.network.roi_heads(features, proposals, every.image_sizes, shifted)
        return {LOSSES[name]: loss for name, loss in (first | second).items()}

    def _detect(self, features: dict[str, Tensor], images: Tensor) -> list[Detections]:
        every = _as_list(images)
        with _branches(self.network, training=False):
            proposals, _ = self.network.rpn(every, features)
            found, _ = self.network.roi_heads(features, proposals, every.image_sizes)
        return [
            {
                "boxes": one["boxes"].float(),
                "labels": one["labels"] - 1,
                "scores": one["scores"].float(),
                "masks": one["masks"][:, 0].float(),
            }
            for one in found
        ]


class Operations(nn.Module):
    """What a network computes of an image if it finds as many objects as it may: for counting operations.

    Takes float (1, 3, H, W).
    """

    def __init__(self, segmenter: InstanceSegmenter) -> None:
        super().__init__()
        self.network = segmenter.network

    def forward(self, images: Tensor) -> None:
        features = self.network.backbone(images)
        self.network.rpn.head(list(features.values()))
        heads, channels = self.network.roi_heads, self.network.backbone.out_channels
        for pool, head, predictor, boxes in (
            (heads.box_roi_pool, heads.box_head, heads.box_predictor, self.network.rpn._post_nms_top_n["testing"]),
            (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor, heads.detections_per_img),
        ):
            predictor(head(images.new_empty(boxes, channels, *pool.output_size)))


class TorchvisionMaskRCNN(NamedNetwork):
    """Mask R-CNN over ResNet-50 as torchvision has it, whole or in its second version; made when called.

    Its published weights are of the whole network, trained on COCO; what depends on the classes starts anew.

    Args:
        name: ``maskrcnn_resnet50_fpn`` or ``maskrcnn_resnet50_fpn_v2``.
        weights: "none" if it shall be trained from scratch.
        trained_stages: of the backbone's five stages, how many train; -1 are all; None are three with weights, or
            else all.
        freeze_statistics: the backbone's batch normalisation keeps its statistics; None where there are weights.
        anchor_sizes: sides in pixels of the anchors of each of the five levels; None for torchvision's.
        detections: found in an image at most.
        options: of torchvision's MaskRCNN, such as `box_score_thresh`.

    Raises:
        ValueError: if torchvision has no such network, or no such option.
    """

    library = "torchvision"

    def __init__(
        self,
        name: str = "maskrcnn_resnet50_fpn_v2",
        weights: str = "none",
        trained_stages: int | None = None,
        freeze_statistics: bool | None = None,
        anchor_sizes: Sequence[int | Sequence[int]] | None = None,
        detections: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(name, None, weights)
        _check_options(options)
        self.trained_stages = (3 if self.pretrained else -1) if trained_stages is None else trained_stages
        self.freeze_statistics = self.pretrained if freeze_statistics is None else freeze_statistics
        self.anchor_sizes, self.detections, self.options = anchor_sizes, detections, options

    def names(self) -> list[str]:
        every = torchvision.models.list_models(module=torchvision.models.detection)
        return [name for name in every if name.startswith("maskrcnn")]

    def make(self, num_classes: int) -> InstanceSegmenter:
        options = dict(self.options)
        if self.anchor_sizes is not None:
            options["rpn_anchor_generator"] = anchors(self.anchor_sizes, levels=5)
        network = torchvision.models.get_model(
            self.name,
            weights=None,
            weights_backbone=None,
            num_classes=num_classes + 1,
            box_detections_per_img=self.detections,
            **options,
        )
        if self.pretrained and self.name == "maskrcnn_resnet50_fpn":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0  # as those weights were trained
        extractor = network.backbone.body
        network.backbone.body = PartlyFrozen(extractor, self.trained_stages, self.freeze_statistics)
        return InstanceSegmenter(network, torchvision.models.resnet50, extractor)

    def published(self) -> Preprocessing:
        return IMAGENET

    def fixed_size(self) -> bool:
        return False

    def download(self) -> dict[str, Tensor]:
        return torchvision.models.get_model_weights(self.name).DEFAULT.get_state_dict(check_hash=True)

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if not any(key.startswith("roi_heads.") for key in state):  # not torchvision's, but the lab's or a classifier's
            return state
        return {f"network.{key}".replace(".backbone.body.", ".backbone.body.body."): v for key, v in state.items()}


class LightMaskRCNN(NetworkFactory):
    """Mask R-CNN with narrow heads over a feature pyramid of any classifier, which trains on a CPU.

    Published weights are those of the classifier, and so is the normalisation of images.

    Args:
        backbone: makes the classifier from ``num_classes``: any of the lab's models for classification.
        weights: "none" if it shall be trained from scratch.
        strides: of the features that it takes of the classifier.
        channels: of each level of the pyramid.
        box_channels: of the two layers that judge a box.
        mask_layers: channels of the convolutions that draw a mask.
        mask_size: cells of the grid that is pooled within a box; masks have twice as many.
        anchor_sizes: sides in pixels of the anchors of each level: one for each stride, and one for twice the largest.
        aspect_ratios: height by width of the anchors.
        proposals: boxes that are judged in an image at most, in training and in inference.
        box_samples: boxes that an image trains with, a quarter of them with an object.
        detections: found in an image at most.
        trained_stages: of the backbone's last stages, how many train; -1 are all.
        freeze_statistics: the backbone's batch normalisation keeps its statistics; None where there are weights.
        options: of torchvision's MaskRCNN, such as `box_score_thresh`.

    Raises:
        ValueError: if there is no such option.
    """

    def __init__(
        self,
        backbone: Callable[..., nn.Module],
        weights: str = "none",
        strides: Sequence[int] = (4, 8, 16, 32),
        channels: int = 64,
        box_channels: int = 256,
        mask_layers: Sequence[int] = (64, 64),
        mask_size: int = 14,
        anchor_sizes: Sequence[int | Sequence[int]] = (16, 32, 64, 128, 256),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        proposals: int = 200,
        box_samples: int = 128,
        detections: int = 100,
        trained_stages: int = -1,
        freeze_statistics: bool | None = None,
        **options: Any,
    ) -> None:
        _check_options(options)
        self.backbone, self.pretrained = backbone, weights != "none"
        self.strides, self.channels, self.box_channels = strides, channels, box_channels
        self.mask_layers, self.mask_size = tuple(mask_layers), mask_size
        self.anchor_sizes, self.aspect_ratios = anchor_sizes, aspect_ratios
        self.proposals, self.box_samples, self.detections = proposals, box_samples, detections
        self.trained_stages = trained_stages
        self.freeze_statistics = self.pretrained if freeze_statistics is None else freeze_statistics
        self.options = options

    def __call__(self, num_classes: int) -> InstanceSegmenter:
        """A network with random weights.

        Raises:
            ValueError: if the backbone gives no such features, or the anchors do not fit them.
        """
        classifier = partial(self.backbone, num_classes=num_classes)
        backbone = PyramidBackbone(
            classifier(), self.strides, self.channels, self.trained_stages, self.freeze_statistics
        )
        generator = anchors(self.anchor_sizes, len(self.strides) + 1, self.aspect_ratios)
        levels = [str(level) for level in range(len(self.strides))]
        pooled = self.channels * 7 * 7
        network = MaskRCNN(
            backbone,
            rpn_anchor_generator=generator,
            rpn_head=RPNHead(self.channels, generator.num_anchors_per_location()[0]),
            rpn_pre_nms_top_n_train=2 * self.proposals,
            rpn_pre_nms_top_n_test=2 * self.proposals,
            rpn_post_nms_top_n_train=self.proposals,
            rpn_post_nms_top_n_test=self.proposals,
            box_roi_pool=MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
            box_head=TwoMLPHead(pooled, self.box_channels),
            box_predictor=FastRCNNPredictor(self.box_channels, num_classes + 1),
            box_batch_size_per_image=self.box_samples,
            box_detections_per_img=self.detections,
            mask_roi_pool=MultiScaleRoIAlign(levels, output_size=self.mask_size, sampling_ratio=2),
            mask_head=MaskRCNNHeads(self.channels, self.mask_layers, 1),
            mask_predictor=MaskRCNNPredictor(self.mask_layers[-1], self.mask_layers[-1], num_classes + 1),
            **self.options,
        )
        return InstanceSegmenter(network, classifier, backbone.extractor)

    @property
    def preprocessing(self) -> Preprocessing:
        return replace(preprocessing_of(self.backbone), size=None)

    def default_weights(self) -> dict[str, Tensor]:
        if not isinstance(self.backbone, NetworkFactory):
            raise ValueError(
                "this backbone has no published weights: give weights=FILE, weights=none, or a backbone that has some "
                "(model@model.backbone=timm)"
            )
        return self.backbone.default_weights()

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = any(key.startswith("network.roi_heads.") for key in state)
        return state if whole or not isinstance(self.backbone, NetworkFactory) else self.backbone.adapt(state)


def anchors(
    sizes: Sequence[int | Sequence[int]], levels: int, ratios: Sequence[float] = (0.5, 1.0, 2.0)
) -> AnchorGenerator:
    """Anchors of `sizes` pixels, one or several for each of `levels`.

    Raises:
        ValueError: if there are not so many, or if levels differ in their number.
    """
    each = [(size,) if isinstance(size, int | float) else tuple(size) for size in sizes]
    if len(each) != levels or len({len(some) for some in each}) != 1:
        raise ValueError(
            f"model.anchor_sizes={[list(some) for some in each]} must have {levels} entries of equally many sides in "
            "pixels, one for each level of the pyramid"
        )
    return AnchorGenerator(tuple(each), (tuple(ratios),) * levels)


def _check_options(options: dict[str, Any]) -> None:
    if unknown := options.keys() - OPTIONS:
        raise ValueError(
            f"model.{', model.'.join(sorted(unknown))} has no effect on torchvision's MaskRCNN: give one of "
            f"{', '.join(sorted(OPTIONS))}"
        )


def _as_list(images: Tensor) -> ImageList:
    height, width = images.shape[2:]
    return ImageList(images, [(height, width)] * len(images))


@contextmanager
def _branches(network: MaskRCNN, training: bool) -> Iterator[None]:
    """Let the two parts that branch by their mode give losses, or else detections; layers within them stay as they are.

    torchvision gives the one in training and the other in evaluation, but validation wants both.
    """
    parts = (network.rpn, network.roi_heads)
    before = [part.training for part in parts]
    for part in parts:
        part.training = training
    try:
        yield
    finally:
        for part, mode in zip(parts, before, strict=True):
            part.training = mode
