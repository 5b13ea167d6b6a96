"""What a trained trial says of images of your own.

    python scripts/predict.py studies/NAME/TRIAL/checkpoints/best.ckpt photo.jpg folder/ --out predictions

A classifier writes predictions.csv: the class, and the probability of each. A segmenter writes for each image NAME.png,
the image with its classes in colour, and NAME_mask.png, whose pixels are classes. Mask R-CNN writes NAME.png, the image
with its objects, and detections.json: class, score, box and run lengths of each as in COCO's results.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image

from cv_lab.data.pixels import Pixels, decode, read_fitting
from cv_lab.data.store import frames
from cv_lab.files import write_csv, write_json
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_png
from cv_lab.pictures.instances import as_plain, at_least, draw_found
from cv_lab.tasks.base import Task
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.average_precision import at_own_size
from cv_lab.training.metrics import classes_of
from cv_lab.trial.build import load_task

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--score", type=float, default=0.5, help="objects below it are left out")
    options = parser.parse_args(arguments)
    try:
        files = list(images_in(options.images))
        if twice := [stem for stem, count in Counter(file.stem for file in files).items() if count > 1]:
            raise ValueError(f"several images are called {twice[0]}: predict them one after another")
        task = load_task(options.checkpoint)
        if isinstance(task, Classification):
            classify(task, files, options.out)
        elif isinstance(task, SemanticSegmentation):
            segment(task, files, options.out)
        else:
            assert isinstance(task, InstanceSegmentation)
            find(task, files, options.out, options.score)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{len(files)} {'image' if len(files) == 1 else 'images'}: {options.out}")


def images_in(paths: Sequence[Path]) -> Iterator[Path]:
    """Files, and those of folders whose names end as images' do.

    Raises:
        FileNotFoundError: if a path is not there, or a folder holds no image.
    """
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                raise FileNotFoundError(f"{path} holds no images")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"there is no {path}")


def classify(task: Classification, files: Sequence[Path], out: Path) -> None:
    assert task.image_size is not None
    rows = []
    for file in files:
        with torch.inference_mode():
            (probabilities,) = task(as_input(decode(file, max(task.image_size)), task)).softmax(1).tolist()
        named = dict(zip(task.classes, probabilities, strict=True))
        predicted = max(named, key=named.__getitem__)
        print(f"{file}: {predicted} ({100 * named[predicted]:.1f} %)")
        rows.append({"image": str(file), "predicted": predicted, **named})
    write_csv(out / "predictions.csv", rows)


def segment(task: SemanticSegmentation, files: Sequence[Path], out: Path) -> None:
    colors = draw.mask_palette(task.classes, task.background)
    for file in files:
        image, canvas, _ = framed(file, task)
        with torch.inference_mode():
            (mask,) = classes_of(task(as_input(canvas, task))).to(torch.uint8).numpy()
        mask = mask[: image.shape[0], : image.shape[1]]
        picture = draw.beside([Image.fromarray(image), Image.fromarray(draw.overlay(image, mask, colors))], file.name)
        seen = np.unique(mask)
        names = draw.legend([task.classes[k] for k in seen], colors[seen], width=max(picture.width, 240))
        save_png(draw.stack([names, picture]), out / f"{file.stem}.png")
        pixels = Image.fromarray(mask, mode="P")
        pixels.putpalette(colors.tobytes())
        save_png(pixels, out / f"{file.stem}_mask.png")


def find(task: InstanceSegmentation, files: Sequence[Path], out: Path, score: float) -> None:
    colors = draw.palette(min(len(task.classes), 256))
    told: list[dict[str, Any]] = []
    for file in files:
        image, canvas, (width, height) = framed(file, task)
        scale = (image.shape[1] / width, image.shape[0] / height)
        with torch.inference_mode():
            found = at_own_size(task(as_input(canvas, task))[0], (height, width), scale)
        sure = at_least(found, score)
        told += [{"image": str(file), **one} for one in as_plain(sure, task.classes)]
        save_png(draw_found(image, sure, task.classes, colors, max(480, *image.shape[:2])), out / f"{file.stem}.png")
        print(f"{file}: {len(sure.classes)} objects")
    write_json(out / "detections.json", told)


def framed(file: Path, task: Task) -> tuple[Pixels, Pixels, tuple[int, int]]:
    """The image (h, w, 3) scaled to fit; the same within a frame of the size that the network was trained at; and the
    image's own width and height."""
    assert task.image_size is not None
    assert task.preprocessing.mean is not None
    image, own = read_fitting(file, task.image_size)
    (canvas,) = frames(1, task.image_size, task.preprocessing.mean)
    canvas[: image.shape[0], : image.shape[1]] = image
    return image, canvas, own


def as_input(image: Pixels, task: Task) -> torch.Tensor:
    return task.preprocessing(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])


if __name__ == "__main__":
    main(sys.argv[1:])
