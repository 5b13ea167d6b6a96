"""The same photographs as files of different kinds, by the accuracy of a linear probe.

    python scripts/benchmarks/pixel_formats.py data/oxford-iiit-pet --weights tf_efficientnet_lite0.safetensors

Pairs that should be equal: upright JPEG files against ones that phones store (turned, EXIF says how); 8-bit grey
against 16-bit grey; opaque photographs, a disc on white, against ones whose ground is transparent (and black beneath).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from PIL import Image

from cv_lab.data.pixels import ORIENTATION, TURNS

INVERSE = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
REPOSITORY = Path(__file__).parents[2]


def upright(photo: Image.Image, path: Path, number: int) -> None:
    photo.save(path.with_suffix(".jpg"), quality=95)


def turned(photo: Image.Image, path: Path, number: int) -> None:
    orientation = (3, 6, 8)[number % 3]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = photo.transpose(INVERSE.get(orientation, TURNS[orientation]))
    stored.save(path.with_suffix(".jpg"), quality=95, exif=exif)


def grey_8_bits(photo: Image.Image, path: Path, number: int) -> None:
    photo.convert("L").save(path.with_suffix(".png"))


def grey_16_bits(photo: Image.Image, path: Path, number: int) -> None:
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(path.with_suffix(".png"))


def _disc(photo: Image.Image) -> np.ndarray:
    y, x = (np.linspace(-1, 1, side) for side in photo.size[::-1])
    return np.asarray(y[:, None] ** 2 + x**2 < 1)


def opaque(photo: Image.Image, path: Path, number: int) -> None:
    Image.fromarray(np.where(_disc(photo)[..., None], np.asarray(photo), 255).astype(np.uint8)).save(
        path.with_suffix(".png")
    )


def transparent(photo: Image.Image, path: Path, number: int) -> None:
    disc = _disc(photo)[..., None]
    pixels = np.where(disc, np.asarray(photo), 0)
    Image.fromarray(np.concatenate([pixels, 255 * disc], 2).astype(np.uint8)).save(path.with_suffix(".png"))


KINDS: tuple[Callable[[Image.Image, Path, int], None], ...] = (
    *(upright, turned, grey_8_bits, grey_16_bits, opaque, transparent),
)


def write(pets: Path, lists: tuple[str, str], root: Path, save: Callable[[Image.Image, Path, int], None]) -> None:
    for split, name in zip(("train", "test"), lists, strict=True):
        for number, line in enumerate((pets / "annotations" / f"{name}.txt").read_text().splitlines()):
            image, breed, *_ = line.split()
            folder = root / split / breed
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(pets / "images" / f"{image}.jpg") as photo:
                save(photo.convert("RGB"), folder / image, number)


def accuracy(root: Path, weights: Path, epochs: int, folder: Path) -> float:
    overrides = [
        *("task=linear_probing", "model=timm", "model.name=tf_efficientnet_lite0", f"weights={weights}"),
        *("data=folder", f"data.root={root}", "data.validation=test", f"epochs={epochs}", "lr=1e-2", "batch_size=32"),
        *("pictures=none", f"studies_dir={folder}/studies", f"cache_dir={folder}/cache", f"study={root.name}"),
    ]
    subprocess.run([sys.executable, "train.py", *overrides], cwd=REPOSITORY, check=True, capture_output=True)
    (result,) = (folder / "studies" / root.name).rglob("result.json")
    return float(json.loads(result.read_text())["metrics"]["test/accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pets", type=Path, help="folder of Oxford-IIIT Pet, with images and annotations")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--lists", nargs=2, default=["balanced37_train", "balanced37_val"])
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for save in KINDS:
            root = Path(place) / save.__name__
            write(options.pets, tuple(options.lists), root, save)
            found = accuracy(root, options.weights.absolute(), options.epochs, Path(place))
            print(f"{save.__name__.replace('_', ' ')}: {100 * found:.1f} %", flush=True)


if __name__ == "__main__":
    main()
