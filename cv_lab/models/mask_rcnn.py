"""Mask R-CNN (He et al., 2017): torchvision's over ResNet-50, and a light one over any classifier.

Without its mask head it is Faster R-CNN (Ren et al., 2015), which detects boxes.
"""

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
from cv_lab.models.backbones import NamedNetwork, NetworkFactory
from cv_lab.models.cut import heads_of
from cv_lab.models.pyramid import PartlyFrozen, PyramidBackbone
from cv_lab.models.roi_align import MultiScaleRoIAlign
from cv_lab.models.weights import start_from
from cv_lab.training.losses import full_precision

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LOSSES = {  # torchvision's names, and ours
    "loss_classifier": "classifier",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "rpn_box",
}
# The modules whose parameters depend on the classes.
CLASS_PARTS = ("network.roi_heads.box_predictor", "network.roi_heads.mask_predictor.mask_fcn_logits")

MASK_PARTS = ("mask_roi_pool", "mask_head", "mask_predictor")  # of torchvision's RoIHeads

# What torchvision's MaskRCNN takes and uses here. It ignores other names without a word, and its resizing is not used.
OPTIONS = {*signature(MaskRCNN).parameters, *signature(FasterRCNN).parameters} - {
    *("kwargs", "backbone", "num_classes", "min_size", "max_size", "image_mean", "image_std")
}

Detections = dict[str, Tensor]
Targets = list[dict[str, Tensor]]


class InstanceSegmenter(nn.Module):
    """A Mask R-CNN of torchvision, for batches of images of one size that are normalised already.

    Maps images, float (N, 3, H, W), to N dicts of the M objects detected in each: "boxes", float32 (M, 4), x and y of
    the upper left and of the lower right corner in pixels; "labels", int64 (M,), from 0 to K - 1; "scores", float32
    (M,), in 0..1, descending; and, if it predicts masks, "masks", float32 (M, S, S), the probability that a cell of a
    grid over the box belongs to the object.

    Args:
        network: of torchvision; its own resizing and normalisation are not used. In the body of its backbone is a
            :class:`~cv_lab.models.pyramid.PartlyFrozen`.
        classifier: makes the classifier that its backbone was cut from.
        masks: predict masks; False removes the mask head.

    Attributes:
        parts: names of its losses.
    """

    def __init__(self, network: MaskRCNN, classifier: Callable[[], nn.Module], masks: bool = True) -> None:
        super().__init__()
        network.transform = None
        self.network, self.classifier, self.masks = network, classifier, masks
        self.parts = tuple(name for name in LOSSES.values() if masks or name != "mask")
        heads = [network.rpn.head, network.roi_heads.box_predictor]
        if masks:
            heads.append(network.roi_heads.mask_predictor)
        else:
            for part in MASK_PARTS:
                setattr(network.roi_heads, part, None)
        # torchvision computes boxes in the precision of the heads' outputs, and bfloat16 has whole pixels beyond 128.
        for head in heads:
            head.register_forward_hook(lambda module, args, output: apply_to_collection(output, Tensor, full_precision))

    def forward(self, images: Tensor) -> list[Detections]:
        return self._detect(self._features(images), images)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The losses, scalars, by the names in `parts`.

        Args:
            images: float (N, 3, H, W).
            targets: N dicts of "boxes", float32 (M, 4), "labels", int64 (M,), from 0 to K - 1, and "masks", uint8
                (M, H, W) of 0 and 1.
        """
        return self._losses(self._features(images), images, targets)

    def losses_and_detections(self, images: Tensor, targets: Targets) -> tuple[dict[str, Tensor], list[Detections]]:
        """Compute losses and detections of a network in evaluation mode from one pass of the backbone."""
        assert not self.training
        features = self._features(images)
        return self._losses(features, images, targets), self._detect(features, images)

    @property
    def extractor(self) -> nn.Module:
        """The part of the classifier in the backbone; its parameters have the same names."""
        return self.network.backbone.body.body

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        """Start from the weights `state`, read from `source`: of a Mask R-CNN or of its backbone's classifier.

        Raises:
            ValueError: if they are of neither.
        """
        if any(key.startswith("network.roi_heads.") for key in state):
            if not self.masks:
                state = {key: value for key, value in state.items() if not key.startswith("network.roi_heads.mask_")}
            elif not any(key.startswith("network.roi_heads.mask_") for key in state):
                raise ValueError(
                    f"{source} is of a network that detects boxes and has no mask head: give model.masks=false, or "
                    "weights of a Mask R-CNN or of a classifier"
                )
            start_from(self, state, source, CLASS_PARTS, fresh=False)
            return
        classifier = self.classifier()
        start_from(classifier, state, source, heads_of(classifier))
        whole = classifier.state_dict()
        self.extractor.load_state_dict({key: whole[key] for key in self.extractor.state_dict()})

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        features = self.network.backbone(images)
        # Boxes, and features pooled within them, are computed in full precision, even if the backbone is not.
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
            detections, _ = self.network.roi_heads(features, proposals, every.image_sizes)
        return [
            {
                "boxes": one["boxes"].float(),
                "labels": one["labels"] - 1,
                "scores": one["scores"].float(),
                **({"masks": one["masks"][:, 0].float()} if self.masks else {}),
            }
            for one in detections
        ]


class Operations(nn.Module):
    """The computation for an image in which the network detects as many objects as it may: to count operations.

    Takes float (1, 3, H, W).
    """

    def __init__(self, segmenter: InstanceSegmenter) -> None:
        super().__init__()
        self.network = segmenter.network

    def forward(self, images: Tensor) -> None:
        features = self.network.backbone(images)
        self.network.rpn.head(list(features.values()))
        heads, channels = self.network.roi_heads, self.network.backbone.out_channels
        proposals = self.network.rpn._post_nms_top_n["testing"]
        branches = [(heads.box_roi_pool, heads.box_head, heads.box_predictor, proposals)]
        if heads.has_mask():
            branches += [(heads.mask_roi_pool, heads.mask_head, heads.mask_predictor, heads.detections_per_img)]
        for pool, head, predictor, boxes in branches:
            predictor(head(images.new_empty(boxes, channels, *pool.output_size)))


class TorchvisionMaskRCNN(NamedNetwork):
    """Makes torchvision's Mask R-CNN over ResNet-50, in its first or second version.

    The published weights are those of the whole network, trained on COCO; the layers that depend on the classes start
    anew.

    Args:
        name: ``maskrcnn_resnet50_fpn`` or ``maskrcnn_resnet50_fpn_v2``.
        trained_stages: number of the backbone's last stages that train, of five; -1 trains all; None trains three with
            weights and all without.
        freeze_statistics: the backbone's BatchNorm layers keep their statistics; None does so with weights.
        anchor_sizes: sides in pixels of the anchors of each of the five levels; None takes torchvision's.
        detections: maximum number of detections in an image.
        masks: predict masks; False detects boxes alone.
        options: of torchvision's MaskRCNN, such as `box_score_thresh`.

    Raises:
        ValueError: if torchvision has no such network, or no such option.
    """

    library = "torchvision"

    def __init__(
        self,
        name: str = "maskrcnn_resnet50_fpn_v2",
        trained_stages: int | None = None,
        freeze_statistics: bool | None = None,
        anchor_sizes: Sequence[int | Sequence[int]] | None = None,
        detections: int = 100,
        masks: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(name)
        _check_options(options)
        self.masks = masks
        self.trained_stages, self.freeze_statistics = trained_stages, freeze_statistics
        self.anchor_sizes, self.detections, self.options = anchor_sizes, detections, options

    def names(self) -> list[str]:
        every = torchvision.models.list_models(module=torchvision.models.detection)
        return [name for name in every if name.startswith("maskrcnn")]

    def make(self, num_classes: int, pretrained: bool) -> InstanceSegmenter:
        trained_stages = (3 if pretrained else -1) if self.trained_stages is None else self.trained_stages
        freeze_statistics = pretrained if self.freeze_statistics is None else self.freeze_statistics
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
        if pretrained and self.name == "maskrcnn_resnet50_fpn":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0  # as those weights were trained
        network.backbone.body = PartlyFrozen(network.backbone.body, trained_stages, freeze_statistics)
        return InstanceSegmenter(network, torchvision.models.resnet50, self.masks)

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
    """Makes a Mask R-CNN with narrow heads over a feature pyramid of any classifier, which trains on a CPU.

    The published weights and the normalisation of images are those of the classifier.

    Args:
        backbone: makes the classifier from ``num_classes``: any of the lab's models for classification.
        strides: of the classifier's features that the pyramid takes.
        channels: of each level of the pyramid.
        box_channels: width of the two layers that classify a box.
        mask_layers: channels of the convolutions that predict a mask.
        mask_size: cells along each side of the grid that is pooled within a box; masks have twice as many.
        anchor_sizes: sides in pixels of the anchors of each level: one for each stride, and one for twice the largest.
        aspect_ratios: height by width of the anchors.
        proposals: maximum number of boxes that are classified in an image, in training and in inference.
        box_samples: boxes in an image that contribute to the losses, at most a quarter of them with an object.
        detections: maximum number of detections in an image.
        trained_stages: number of the backbone's last stages that train; -1 trains all.
        freeze_statistics: the backbone's BatchNorm layers keep their statistics; None does so with weights.
        masks: predict masks; False detects boxes alone.
        options: of torchvision's MaskRCNN, such as `box_score_thresh`.

    Raises:
        ValueError: if there is no such option.
    """

    def __init__(
        self,
        backbone: Callable[..., nn.Module],
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
        masks: bool = True,
        **options: Any,
    ) -> None:
        _check_options(options)
        self.backbone, self.masks = backbone, masks
        self.strides, self.channels, self.box_channels = strides, channels, box_channels
        self.mask_layers, self.mask_size = tuple(mask_layers), mask_size
        self.anchor_sizes, self.aspect_ratios = anchor_sizes, aspect_ratios
        self.proposals, self.box_samples, self.detections = proposals, box_samples, detections
        self.trained_stages, self.freeze_statistics = trained_stages, freeze_statistics
        self.options = options

    def __call__(self, num_classes: int, pretrained: bool = False) -> InstanceSegmenter:
        """A network with random weights.

        Raises:
            ValueError: if the backbone has no features of these strides, or the anchors do not fit them.
        """
        classifier = partial(self.backbone, num_classes=num_classes)
        if isinstance(self.backbone, NetworkFactory):
            classifier = partial(classifier, pretrained=pretrained)
        freeze_statistics = pretrained if self.freeze_statistics is None else self.freeze_statistics
        backbone = PyramidBackbone(classifier(), self.strides, self.channels, self.trained_stages, freeze_statistics)
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
        return InstanceSegmenter(network, classifier, self.masks)

    def preprocessing(self, pretrained: bool) -> Preprocessing:
        if not isinstance(self.backbone, NetworkFactory):
            return Preprocessing()
        return replace(self.backbone.preprocessing(pretrained), size=None)

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
    """Make anchors of `sizes` pixels, one or several for each of `levels`.

    Raises:
        ValueError: if `sizes` has another number of entries, or the entries have different numbers of sizes.
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
    """Switch the two parts of `network` that branch by their mode to losses or detections, without the layers in them.

    torchvision computes losses in training mode and detections in evaluation mode, but validation needs both.
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
