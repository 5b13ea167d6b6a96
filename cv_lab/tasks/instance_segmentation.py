"""Instance segmentation: a box, a mask and a class for every object; and detection, without masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

from cv_lab.data.augment import Batch
from cv_lab.data.memory import send
from cv_lab.models.mask_rcnn import (
    LOSSES,
    Detections,
    InstanceSegmenter,
    LightMaskRCNN,
    Operations,
    Targets,
    TorchvisionMaskRCNN,
)
from cv_lab.models.meta import flops
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_png
from cv_lab.pictures.objects import as_plain, at_least, draw_found
from cv_lab.tasks.base import Exported, ModelFactory, OptimizerFactory, Photo, Predictor, SchedulerFactory, Task
from cv_lab.training.average_precision import (
    FIGURES,
    KINDS,
    AveragePrecision,
    Found,
    at_own_size,
    panoptic_quality,
)
from cv_lab.training.evidence import Arrays
from cv_lab.training.metrics import MeanLoss
from cv_lab.training.seeds import seed_torch
from cv_lab.training.units import LOSS, SHARE, Unit

SURE = 0.5  # least score of the detections that panoptic quality counts
LEAST_SIDE = 1  # pixels of a box that is learnt from


class InstanceMetrics(nn.Module):
    """What is counted over one split.

    Args:
        parts: names of the losses.
        num_classes: K; None counts losses alone, since a network in training finds nothing.
    """

    def __init__(self, parts: Sequence[str], num_classes: int | None) -> None:
        super().__init__()
        self.losses = nn.ModuleDict({name: MeanLoss() for name in ("total", *parts)})
        self.dropped = SumMetric(nan_strategy="disable")  # else it would wait for a GPU in each step
        self.precision = None if num_classes is None else AveragePrecision(num_classes, "mask" in parts)


class InstanceSegmentation(Task):
    """Train a Mask R-CNN to find all objects of an image.

    A network without a mask head is trained to detect boxes: the task's `target` is then "boxes", its `monitor`
    ``val/box_map``, and nothing is logged of masks.

    The losses are logged by part. Validation and test log COCO's figures for masks and boxes, see
    :meth:`~cv_lab.training.average_precision.AveragePrecision.compute`, measured in the images' own size.

    Args:
        model: makes the network, an :class:`~cv_lab.models.mask_rcnn.InstanceSegmenter`, from ``num_classes=K``.
        classes: the K names.
        loss: must be None, since the network has its losses in it.
        optimizer, scheduler: see :class:`~cv_lab.tasks.base.Task`.
        loss_weights: by part: classifier, box, mask, objectness, rpn_box; those not named weigh 1.
    """

    model: InstanceSegmenter
    monitor = "val/mask_map"  # of a network with masks; likewise `target`
    mode = "max"
    units: ClassVar = {
        **dict.fromkeys(("loss", *(f"loss_{name}" for name in LOSSES.values())), LOSS),
        "dropped_boxes": Unit("plain", "min"),
        **dict.fromkeys((f"{kind}_{figure}" for kind in KINDS.values() for figure in (*FIGURES, "ap")), SHARE),
    }
    target = "instances"
    square_photos = False
    table = "detections.json"
    refused_precisions: ClassVar[dict[str, str]] = {"bf16-true": "boxes need full precision: give bf16-mixed"}
    fewest_classes = 1  # it tells objects from the background
    details = (
        "dropped_boxes",
        *(f"loss_{name}" for name in LOSSES.values()),
        *(f"{kind}_map_{which}" for kind in KINDS.values() for which in ("75", "small", "medium", "large")),
        *(f"{kind}_mar_{which}" for kind in KINDS.values() for which in ("1", "10", "100", "small", "medium", "large")),
    )

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: None,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        network = model(num_classes=len(classes))
        if not isinstance(network, InstanceSegmenter):
            raise ValueError(
                f"{type(network).__name__} finds no instances: give model=light_mask_rcnn or model=mask_rcnn"
            )
        if loss is not None:
            raise ValueError(
                "instance segmentation has its losses in the network: give loss=none, and task.loss_weights"
            )
        super().__init__(network, classes, optimizer, scheduler)
        self.kind = "mask" if network.masks else "box"  # of the figures that count most
        self.monitor, self.target = f"val/{self.kind}_map", "instances" if network.masks else "boxes"
        self.loss_weights = dict.fromkeys(LOSSES.values(), 1.0) | dict(loss_weights or {})
        if unknown := self.loss_weights.keys() - set(LOSSES.values()):
            raise ValueError(
                f"task.loss_weights names {', '.join(unknown)}, but there are {', '.join(LOSSES.values())}"
            )

    @classmethod
    def target_with(cls, model: Any) -> str:
        without = isinstance(model, LightMaskRCNN | TorchvisionMaskRCNN) and not model.masks
        return "boxes" if without else cls.target

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        self.model.start_from(state, source)

    def configure_metrics(self, split: str) -> InstanceMetrics:
        return InstanceMetrics(self.model.parts, None if split == "train" else len(self.classes))

    def evidence(self) -> Arrays:
        """Of each test image "objects", "found" (of a score of at least `SURE`), int64 (N,), and "quality".

        The latter, float32 (N,), is the panoptic quality; NaN for an image without objects and detections.
        """
        images = [
            (at_least(one, SURE), objects) for one, objects in self.split_metrics("test").precision.of_all_processes()
        ]
        quality = [panoptic_quality(one, objects) for one, objects in images]
        return {
            "index": np.arange(len(images)),
            "objects": np.array([int((~objects.crowd).sum()) for _, objects in images], np.int64),
            "found": np.array([len(one.classes) for one, _ in images], np.int64),
            "quality": np.array(quality, np.float32),  # None becomes NaN
        }

    def precision(self, split: str) -> dict[str, Tensor]:
        """COCO's figures of a finished epoch of "val" or "test", see :class:`AveragePrecision`; computed once."""
        return self.split_metrics(split).precision.compute()

    def summarise(self, metrics: InstanceMetrics) -> dict[str, Tensor]:
        losses = {f"loss_{name}": metric.compute() for name, metric in metrics.losses.items()}  # type: ignore[operator]
        scalars = {"loss": losses.pop("loss_total"), **losses}
        if metrics.precision is None:
            return scalars | {"dropped_boxes": metrics.dropped.compute()}
        figures = metrics.precision.compute()
        scalars |= {name: value for name, value in figures.items() if value.ndim == 0}
        for kind in metrics.precision.kinds.values():
            each = zip(self.classes, figures[f"{kind}_ap"], strict=True)
            scalars |= {f"{kind}_ap/{name}": value for name, value in each}
        return scalars

    def compile_network(self) -> None:
        """Compile the backbone alone: the number of boxes behind it differs from step to step."""
        self.model.network.backbone.compile()

    def flops(self, size: tuple[int, ...]) -> int:
        return flops(Operations(self.model), size)

    def predict(self, images: Tensor) -> list[Detections]:
        """What is found in each image, in the coordinates of the network's input."""
        return self(images)

    def files(self, name: str) -> tuple[str, ...]:
        """The image with its objects."""
        return (f"{name}.png",)

    def write(
        self, photo: Photo, prediction: list[Detections], folder: Path, name: str, score: float
    ) -> tuple[list[dict[str, Any]], str]:
        """Write a picture; a row for each object holds class, score, box and perhaps run lengths, as COCO's results."""
        (height, width), shown = photo.size, photo.shown
        scale = (shown.shape[1] / width, shown.shape[0] / height)
        found = at_least(at_own_size(prediction[0], photo.size, scale), score)
        colors = draw.palette(min(len(self.classes), 256))
        (file,) = self.files(name)
        picture = draw_found(shown, found, photo.size, self.classes, colors, max(480, *shown.shape[:2]))
        save_png(picture, folder / file)
        rows = [{"image": str(photo.path), **one} for one in as_plain(found, self.classes)]
        return rows, "1 object" if len(rows) == 1 else f"{len(rows)} objects"

    def exported(self) -> Exported:
        """Of one image: boxes, labels, scores and perhaps masks, see :class:`InstanceSegmenter`."""
        assert self.image_size is not None
        example = torch.zeros(1, 3, *self.image_size, dtype=torch.uint8)
        names = ("boxes", "labels", "scores", "masks") if self.model.masks else ("boxes", "labels", "scores")
        return Exported(OneImage(self).eval(), example, names)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Found]:
        """What is found in each image, at its own size."""
        return self.found(self(batch["image"]), batch)

    def found(self, detections: Sequence[Detections], batch: Batch) -> list[Found]:
        """Detections at the images' own sizes."""
        return [at_own_size(d, o.size, o.scale) for d, o in zip(detections, batch["objects"], strict=True)]

    def step(self, split: str, batch: Batch) -> Tensor:
        images, metrics = batch["image"], self.split_metrics(split)
        targets = targets_of(batch)
        if split == "train":
            losses = self.model.losses(images, targets)
            metrics.dropped.update((batch["classes"] >= 0).sum() - sum(len(target["labels"]) for target in targets))
        else:
            # Boxes that losses are computed of are drawn at random: the same ones in each epoch, and without a change
            # to what training draws.
            device = images.device
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                seed_torch(0, device)
                losses, detections = self.model.losses_and_detections(images, targets)
            metrics.precision.update(self.found(detections, batch), batch["objects"])
        total = torch.stack([self.loss_weights[name] * loss for name, loss in losses.items()]).sum()
        for name, loss in {"total": total, **losses}.items():
            metrics.losses[name].update(loss, len(images))
        return total


class OneImage(Predictor):
    """An instance segmenter that takes one image, uint8 (1, 3, H, W), and gives a tuple of its detections' tensors."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        (detections,) = super().forward(images)
        return tuple(detections.values())


def targets_of(batch: Batch) -> Targets:
    """What :meth:`~cv_lab.models.mask_rcnn.InstanceSegmenter.losses` wants of a batch.

    Boxes enclose the pixels of masks, so they fit whatever augmentation has done to these. Objects of which nothing is
    left are dropped.
    """
    masks, classes = batch["masks"], batch["classes"]
    rows, columns = masks.amax(3), masks.amax(2)  # whether an object is seen there, (N, M, H) and (N, M, W)
    left, right = _span(columns)
    top, bottom = _span(rows)
    boxes = torch.stack([left, top, right, bottom], 2).float()
    kept = (classes >= 0) & (right - left >= LEAST_SIDE) & (bottom - top >= LEAST_SIDE)
    # torchvision takes tensors of exactly the objects that augmentation has left. Their number is known on the device
    # alone, so this copy waits for a GPU, once for the whole batch.
    known = kept.cpu()
    index, counts = send(known.flatten().nonzero().flatten(), kept.device), known.sum(1).tolist()
    each = (values.flatten(0, 1)[index].split(counts) for values in (boxes, classes, masks))
    return [dict(zip(("boxes", "labels", "masks"), some, strict=True)) for some in zip(*each, strict=True)]


def _span(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Start (inclusive) and end (exclusive) of the non-zero span along the last axis of (N, M, L); 0, 0 without one."""
    length = seen.shape[-1]
    if seen.numel() == 0:
        return seen.new_zeros(seen.shape[:2], dtype=torch.long), seen.new_zeros(seen.shape[:2], dtype=torch.long)
    some = seen.amax(-1) > 0
    first, last = seen.argmax(-1), length - seen.flip(-1).argmax(-1)
    return first * some, last * some
