"""Pictures of a segmenter: its masks of some validation images, the IoU of each class, the confusion matrix."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Callback, Trainer

from cv_lab.data.base import ImageData
from cv_lab.data.splits import balanced_subset
from cv_lab.files import write_json
from cv_lab.labels import IGNORE
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_confusion_matrix, save_png
from cv_lab.pictures.tensorboard import add_image
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.metrics import iou

LEGEND = 30  # classes at most; beyond that only those in the pictures are named


class SegmentationPictures(Callback):
    """Show a fixed sample of validation images after each epoch; keep those of the best checkpoint.

    Each row holds the image, its truth, its prediction, and the wrong pixels in red. TensorBoard gets them in every
    epoch, the folder as ``gallery_last_epoch.png``. At the end the folder holds, of the best checkpoint,
    ``gallery.png``, ``samples.json`` with ``images/*.png`` and ``masks/*_{truth,predicted}.png`` (pixels are classes,
    with a palette), and of the test set ``iou.png`` and ``confusion_matrix.csv`` (rows are the truth) and ``.png``.

    Args:
        folder: where the pictures go.
        count: images in the sample.
    """

    def __init__(self, folder: str, count: int = 8) -> None:
        self.folder = Path(folder)
        self.count = count

    def on_validation_epoch_end(self, trainer: Trainer, task: SemanticSegmentation) -> None:  # type: ignore[override]
        if trainer.is_global_zero:
            gallery = self._draw(task, self._predict(trainer, task))
            add_image(trainer, "predictions", gallery)
            save_png(gallery, self.folder / "gallery_last_epoch.png")

    def on_test_epoch_end(self, trainer: Trainer, task: SemanticSegmentation) -> None:  # type: ignore[override]
        counts = task.confusion("test").cpu()  # reduced over all processes
        if not trainer.is_global_zero:
            return
        samples = self._predict(trainer, task)
        gallery = self._draw(task, samples)
        bars = draw.bar_chart(100 * iou(counts).numpy(), task.classes, "Intersection over union, test set", "%")
        matrix = save_confusion_matrix(counts.numpy(), task.classes, self.folder)
        for tag, picture in (("predictions_of_best", gallery), ("iou", bars), ("confusion_matrix", matrix)):
            add_image(trainer, tag, picture)
        save_png(gallery, self.folder / "gallery.png")
        save_png(bars, self.folder / "iou.png")
        colors = draw.mask_palette(task.classes, task.background)
        for number, sample in enumerate(samples):
            save_png(Image.fromarray(sample.pop("image")), self.folder / "images" / f"{number}.png")
            for kind in ("truth", "predicted"):
                mask = Image.fromarray(sample.pop(kind), mode="P")
                mask.putpalette(colors.tobytes())
                save_png(mask, self.folder / "masks" / f"{number}_{kind}.png")
        write_json(self.folder / "samples.json", samples)

    def _predict(self, trainer: Trainer, task: SemanticSegmentation) -> list[dict[str, Any]]:
        """Of each sample its index, image, truth and prediction, uint8 (H, W) each, and the share of right pixels."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        index = balanced_subset(data.val.labels.numpy(), min(self.count, len(data.val)), seed=0)
        batch = data.val.__getitems__(index.tolist())
        with torch.inference_mode():
            predicted = task.predict_step({"image": data.inputs(data.val, index, task.device)}, 0).cpu()
        return [
            {"index": int(i), "pixel_accuracy": _share(truth, mask), "image": image, "truth": truth, "predicted": mask}
            for i, image, truth, mask in zip(
                index,
                batch["image"].permute(0, 2, 3, 1).numpy(),
                batch["mask"].numpy(),
                predicted.numpy(),
                strict=True,
            )
        ]

    def _draw(self, task: SemanticSegmentation, samples: list[dict[str, Any]]) -> Image.Image:
        colors = draw.mask_palette(task.classes, task.background)
        rows = [
            draw.segmentation_row(s["image"], s["truth"], s["predicted"], colors, _title(s["pixel_accuracy"]))
            for s in samples
        ]
        grid = draw.grid(rows, columns=2)
        shown = np.arange(len(task.classes))
        if len(shown) > LEGEND:
            seen = np.concatenate([np.unique(s[kind]) for s in samples for kind in ("truth", "predicted")])
            shown = np.setdiff1d(seen, [IGNORE])
        names = draw.legend([task.classes[k] for k in shown], colors[shown], width=grid.width)
        return draw.stack([names, grid])


def _share(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> float | None:
    counted = truth != IGNORE
    return float((truth == predicted)[counted].mean()) if counted.any() else None


def _title(share: float | None) -> str:
    right = "no labelled pixel" if share is None else f"{100 * share:.1f} % right"
    return f"image, truth, prediction, errors: {right}"
