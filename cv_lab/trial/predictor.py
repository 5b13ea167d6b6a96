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

from cv_lab.data import pixels
from cv_lab.tasks.base import Photo, Task
from cv_lab.training.average_precision import at_own_size
from cv_lab.trial.build import load_task

Array = NDArray[np.uint8]
Picture = str | Path | Image.Image | Array
BATCH_SIZE = 32  # images that go through the network at a time


def load(checkpoint: str | Path, trusted: Sequence[str] = (), weights: str | Path | None = None) -> "Predictor":
    """Load a trial's checkpoint, such as ``studies/NAME/TRIAL/checkpoints/best.ckpt``, on the CPU.

    Args:
        checkpoint: the file.
        trusted: modules of your own whose code the checkpoint may run.
        weights: file of the frozen backbone, where it is not where it lay when the trial was trained.

    Raises:
        FileNotFoundError: if there is no such file, or none of the frozen backbone's weights.
        ValueError: if it is not a checkpoint of this lab, or names code that is not trusted.
    """
    return Predictor(load_task(checkpoint, trusted, weights))


class Predictor:
    """Applies a trained task to images of any size.

    Called with one image, it returns one prediction; called with a list, it returns a list. An image is the path of a
    file, a PIL image, or pixels, uint8 (H, W, 3) in RGB or (H, W) in grey. It is read as training reads images (upright
    by EXIF, of 16 bits scaled to 8, transparent ones laid on white) and scaled as the task's data set scales them.
    Predictions are for its own size, upright. A prediction depends on the task:

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
        photos = [self._photo(image) for image in images]
        outputs = predict_batch(self.task, photos)
        return [self._at_own_size(output, photo) for output, photo in zip(outputs, photos, strict=True)]

    def _photo(self, image: Picture) -> Photo:
        if isinstance(image, str | Path):
            return self.task.open_photo(Path(image))
        picture = image if isinstance(image, Image.Image) else _from_array(image)
        try:
            picture.load()  # or a JPEG of the caller's would be decoded at less than its size
            return self.task.fitted(pixels.Photo(picture))
        except OSError as error:
            raise ValueError(f"the PIL image cannot be decoded: {error}") from error

    def _at_own_size(self, output: Any, photo: Photo) -> Any:
        height, width = photo.shown.shape[:2]
        if self.task.target in ("instances", "boxes"):
            return at_own_size(output, photo.size, (width / photo.size[1], height / photo.size[0]))
        probabilities: Tensor = output.float()
        if self.task.target == "mask":
            shown = probabilities[None, :, :height, :width]
            (probabilities,) = F.interpolate(shown, photo.size, mode="bilinear", align_corners=False)
        return probabilities.numpy()


def predict_batch(task: Task, photos: Sequence[Photo]) -> Any:
    """What a loaded `task` says of a batch of `photos`, see :meth:`~cv_lab.tasks.base.Task.predict`."""
    images = torch.from_numpy(np.stack([photo.pixels for photo in photos])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return task.predict(task.preprocessing(images))


def _from_array(image: Array) -> Image.Image:
    shapes = isinstance(image, np.ndarray) and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
    if not shapes or image.dtype != np.uint8 or not image.size:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"an image is given as {given}: give a path, a PIL image, or an array of pixels, uint8 (H, W, 3) in RGB or "
            "(H, W) in grey"
        )
    return Image.fromarray(image)
