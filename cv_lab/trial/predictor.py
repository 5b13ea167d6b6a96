"""A trained checkpoint as a function of images, for use from Python: :func:`cv_lab.load`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cv_lab.data.pixels import Photo, decode, read_fitting
from cv_lab.data.store import frames, ground_of
from cv_lab.tasks.base import Task
from cv_lab.training.average_precision import at_own_size
from cv_lab.trial.build import load_task

Pixels = NDArray[np.uint8]
Picture = str | Path | Image.Image | Pixels
BATCH_SIZE = 32  # images that go through the network at a time


def load(checkpoint: str | Path) -> "Predictor":
    """Load a trial's checkpoint, such as ``studies/NAME/TRIAL/checkpoints/best.ckpt``, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint of this lab.
    """
    return Predictor(load_task(checkpoint))


class Predictor:
    """Applies a trained task to images of any size.

    Called with one image, it returns one prediction; called with a list, it returns a list. An image is the path of a
    file, a PIL image, or RGB pixels, uint8 (H, W, 3). It is scaled as the task's data set scales its images, and
    predictions are for its own size. A prediction depends on the task:

    - classification, of one class or of several: probabilities, float32 (K,)
    - semantic segmentation: probabilities of each pixel, float32 (K, H, W)
    - instance segmentation: a :class:`~cv_lab.training.average_precision.Found`, with boxes (x, y, width and height in
      pixels), classes (indices into `classes`), scores, best first, and masks as run lengths of COCO

    Attributes:
        task: the task, in evaluation mode on the CPU.
        classes: names of the K classes.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.classes = task, task.classes

    def __call__(self, images: Picture | Sequence[Picture]) -> Any:
        """Predict one image or a list of them.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a file cannot be decoded, or an array does not hold pixels as described above.
        """
        if isinstance(images, str | Path | Image.Image | np.ndarray):
            return self._predict([images])[0]
        batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
        return [prediction for batch in batches for prediction in self._predict(batch)]

    def _predict(self, images: Sequence[Picture]) -> list[Any]:
        assert self.task.image_size is not None
        fitted = [self._whole(image) if self.task.square_photos else self._framed(image) for image in images]
        pixels = torch.from_numpy(np.stack([canvas for canvas, _, _ in fitted])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            outputs = self.task.predict(self.task.preprocessing(pixels))
        return [self._at_own_size(out, used, own) for out, (_, used, own) in zip(outputs, fitted, strict=True)]

    def _framed(self, image: Picture) -> tuple[Pixels, tuple[int, int], tuple[int, int]]:
        """An image scaled in proportion into a canvas (H, W, 3) of the size that the network was trained at.

        Returns:
            the canvas, height and width of the image in it, and its own height and width.
        """
        assert self.task.image_size is not None
        assert self.task.preprocessing.mean is not None
        height, width = self.task.image_size
        if isinstance(image, str | Path):
            scaled, (own_width, own_height) = read_fitting(Path(image), (height, width), self.task.fit)
        else:
            picture = _picture(image)
            own_width, own_height = picture.size
            photo = Photo(picture)
            scaled = photo.fitting((height, width))
            if self.task.fit != "pad":
                scaled = photo.fitted((height, width), self.task.fit, ())
        (canvas,) = frames(1, (height, width), self.task.preprocessing.mean)
        canvas[: scaled.shape[0], : scaled.shape[1]] = scaled
        return canvas, (scaled.shape[0], scaled.shape[1]), (own_height, own_width)

    def _at_own_size(self, output: Any, used: tuple[int, int], own: tuple[int, int]) -> Any:
        """Crop the network's output to the `used` upper left pixels of its canvas, and scale it to the image's size."""
        if self.task.target in ("instances", "boxes"):
            return at_own_size(output, own, (used[1] / own[1], used[0] / own[0]))
        probabilities: Tensor = output.float()
        if self.task.target == "mask":
            seen = probabilities[None, :, : used[0], : used[1]]
            (probabilities,) = F.interpolate(seen, own, mode="bilinear", align_corners=False)
        return probabilities.numpy()

    def _whole(self, image: Picture) -> tuple[Pixels, tuple[int, int], tuple[int, int]]:
        """An image fitted as classes are learnt from it, (H, W, 3); with this size twice, as `_framed` has it."""
        size, mean = self.task.image_size, self.task.preprocessing.mean
        assert size is not None
        assert mean is not None
        if isinstance(image, str | Path):
            pixels = decode(Path(image), size, self.task.fit, ground_of(mean))
        else:
            pixels = Photo(_picture(image)).fitted(size, self.task.fit, ground_of(mean))
        return pixels, size, size


def _picture(image: Image.Image | Pixels) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"an image is given as {given}: give a path, a PIL image, or an array of RGB pixels, uint8 (H, W, 3)"
        )
    return Image.fromarray(image)
