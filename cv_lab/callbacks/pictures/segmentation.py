"""Pictures of a segmenter: its masks of some validation images, the IoU of each class, the confusion matrix."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Trainer

from cv_lab.callbacks.pictures.base import Pictures, Sample, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.labels import IGNORE
from cv_lab.pictures import charts, draw
from cv_lab.pictures.artifacts import save_png, write_confusion_csv
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.metrics import iou

MAX_LEGEND = 30  # classes in a legend; if there are more, it names only those in the pictures


class SegmentationPictures(Pictures):
    """See :class:`~cv_lab.callbacks.pictures.base.Pictures`. A row holds an image, its truth, prediction, and errors.

    After the test the folder also holds ``samples.json`` with ``images/*.png`` and ``masks/*_{truth,predicted}.png``
    (pixels are classes, with a palette), and of the test set ``iou.png`` and ``confusion_matrix.csv`` (rows are the
    truth) and ``.png``.

    Args:
        folder: where the pictures go.
        count: images in the sample.
    """

    def look(
        self, task: SemanticSegmentation, data: ImageData, images: InMemoryImages, index: NDArray[np.integer]
    ) -> list[Sample]:
        batch = images.__getitems__(index.tolist())
        with torch.inference_mode():
            predicted = task.predict_step({"image": data.inputs(images, index, task.device)}, 0).cpu().numpy()
        pixels, masks = batch["image"].permute(0, 2, 3, 1).numpy(), batch["mask"].numpy()
        return [
            {"index": i, "pixel_accuracy": _share(truth, mask), "image": image, "truth": truth, "predicted": mask}
            for i, image, truth, mask in zip(index.tolist(), pixels, masks, predicted, strict=True)
        ]

    def figures(self, trainer: Trainer, task: SemanticSegmentation) -> torch.Tensor:
        return task.confusion("test").cpu()

    def finish(
        self, task: SemanticSegmentation, samples: Sequence[Sample], figures: torch.Tensor
    ) -> dict[str, Image.Image]:
        write_confusion_csv(figures.numpy(), task.classes, self.folder / "confusion_matrix.csv")
        colors = draw.mask_palette(task.classes, task.background)
        for number, sample in enumerate(samples):
            for kind in ("truth", "predicted"):
                mask = Image.fromarray(sample[kind], mode="P")
                mask.putpalette(colors.tobytes())
                save_png(mask, self.folder / "masks" / f"{number}_{kind}.png")
        kept = ("index", "pixel_accuracy", "image")
        save_samples(self.folder, [{key: sample[key] for key in kept} for sample in samples])
        return {
            "iou": charts.bar_chart(100 * iou(figures).numpy(), task.classes, "Intersection over union, test set", "%"),
            "confusion_matrix": charts.confusion_matrix(figures.numpy(), task.classes),
        }

    def gallery(self, task: SemanticSegmentation, samples: Sequence[Sample]) -> Image.Image:
        colors = draw.mask_palette(task.classes, task.background)
        rows = [draw.segmentation_row(s["image"], s["truth"], s["predicted"], colors, _title(s)) for s in samples]
        grid = draw.grid(rows, columns=2)
        shown = np.arange(len(task.classes))
        if len(shown) > MAX_LEGEND:
            seen = np.concatenate([np.unique(s[kind]) for s in samples for kind in ("truth", "predicted")])
            shown = np.setdiff1d(seen, [IGNORE])
        names = draw.legend([task.classes[k] for k in shown], colors[shown], width=grid.width)
        return draw.stack([names, grid])


def _share(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> float | None:
    counted = truth != IGNORE
    return float((truth == predicted)[counted].mean()) if counted.any() else None


def _title(sample: Sample) -> str:
    share = sample["pixel_accuracy"]
    right = "no labelled pixel" if share is None else f"{100 * share:.1f} % right"
    return f"{sample.get('file', 'image, truth, prediction, errors')}: {right}"
