"""The page of ``cv-lab data``: tables with bars, annotated sample images, smallest and largest objects."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.instances import InstanceImages
from cv_lab.data.label_sets import LabelledImages
from cv_lab.data.own import OwnData
from cv_lab.data.photos import PhotoData
from cv_lab.data.pixels import opened
from cv_lab.files import write_text
from cv_lab.pictures import draw
from cv_lab.report.templates import render

SAMPLES = 24  # images of the training set on the page
EXTREMES = 6  # smallest and largest objects each
ROWS = 100  # of long tables; the csv files have all
TILE = 240  # pixels: longer side of a picture
CONTEXT = 2  # side of the part that shows an object, in sides of its box
LEAST = 40  # pixels of the image that are shown around a small object


class Findings(NamedTuple):
    """What is said of a data set.

    Attributes:
        title: what was looked at.
        about: what was recognised.
        counted: what the numbers of `classes` count: images, pixels or objects.
        classes: a row for each class: its name, and its number of images, pixels or objects in each set.
        sizes: sentences on the sizes of images and objects.
        advice: ordinary mistakes, with what to do about them.
        dropped: a row for each file or record that is dropped or noted.
        duplicates: a row for each image that looks like one of another set.
    """

    title: str
    about: str
    counted: str
    classes: list[dict[str, Any]]
    sizes: list[str]
    advice: list[str]
    dropped: list[dict[str, str]]
    duplicates: list[dict[str, Any]]


class Figure(NamedTuple):
    """A picture as the address of an image, and the words below it."""

    source: str
    words: str


def write_page(findings: Findings, data: PhotoData, file: Path) -> None:
    """Write the page of a data set that is set up."""
    assert data.train is not None
    colors = draw.mask_palette(data.classes, data.classes.index("background") if "background" in data.classes else None)
    smallest, largest = extremes(data, colors)
    content = {
        **findings._asdict(),
        "most": max(1, *(row["train"] for row in findings.classes)),
        "numbers": numbers(findings),
        "rows": ROWS,
        "count": len(data.train),
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in colors.tolist()]
        if data.target not in ("label", "labels")
        else [],
        "samples": samples(data, colors),
        "smallest": smallest,
        "largest": largest,
    }
    write_text(file, render("look.html.jinja", content, "cv_lab.trial"))


def numbers(findings: Findings) -> list[dict[str, str]]:
    """The table of classes as text: counts, or shares of the labelled pixels of each set."""
    totals = {key: max(1, sum(row[key] for row in findings.classes)) for key in list(findings.classes[0])[1:]}

    def text(row: dict[str, Any], key: str) -> str:
        return f"{100 * row[key] / totals[key]:.2f} %" if findings.counted == "pixels" else f"{row[key]:,}"

    return [{"class": row["class"], **{key: text(row, key) for key in totals}} for row in findings.classes]


def samples(data: PhotoData, colors: NDArray[np.uint8]) -> list[Figure]:
    """Training images with what they are annotated with; those of each class in turn."""
    train = data.train
    assert train is not None
    mixed = np.random.default_rng(0).permutation(len(train)).tolist()
    seen: Counter[int] = Counter()
    ranks = {}
    for number in mixed:
        label = int(train.labels[number])
        ranks[number] = seen[label]
        seen[label] += 1
    return [annotated(data, train, number, colors) for number in sorted(mixed, key=ranks.__getitem__)[:SAMPLES]]


def annotated(data: PhotoData, images: InMemoryImages, number: int, colors: NDArray[np.uint8]) -> Figure:
    """An image with its mask, objects or labels."""
    pixels = images.images[torch.tensor([number])][0].permute(1, 2, 0).numpy()
    name = Path(files_of(data, "train")[number]).name
    if isinstance(images, InstanceImages):
        objects = images.objects[number]
        height, width = (max(1, round(objects.size[k] * objects.scale[1 - k])) for k in (0, 1))
        masks = [rle.decode(mask)[:height, :width] for mask in objects.masks]
        labels = [data.classes[k] for k in objects.classes]
        chosen = [colors[k].tolist() for k in objects.classes]
        return Figure(_source(draw.instances(pixels[:height, :width], masks, labels, chosen, TILE)), name)
    if images.masks is not None:
        mask = images.masks[torch.tensor([number])][0].numpy()
        height, width = _shown(data, number, mask.shape)
        picture = draw.overlay(pixels[:height, :width], mask[:height, :width], colors)
        return Figure(_source(Image.fromarray(picture)), name)
    return Figure(_source(Image.fromarray(pixels)), label_of(images, number, data.classes))


def extremes(data: PhotoData, colors: NDArray[np.uint8]) -> tuple[list[Figure], list[Figure]]:
    """The smallest and the largest objects of the training set."""
    if not isinstance(data.train, InstanceImages):
        return [], []
    order = sorted(areas_of(data.train), key=lambda found: found[1])
    few = min(EXTREMES, len(order) // 2)
    return tuple([_object(data, *found, colors) for found in some] for some in (order[:few], order[::-1][:few]))  # type: ignore[return-value]


def _object(data: PhotoData, area: float, share: float, image: int, number: int, colors: NDArray[np.uint8]) -> Figure:
    """An object and what is around it, at the image's own size."""
    assert isinstance(data.train, InstanceImages)
    objects = data.train.objects[image]
    x, y, width, height = objects.boxes[number].tolist()
    side = max(LEAST, CONTEXT * max(width, height))
    limits = objects.size[::-1]
    left, top = (int(max(0, at + long / 2 - side / 2)) for at, long in ((x, width), (y, height)))
    right, bottom = (int(min(limit, at + side)) for limit, at in zip(limits, (left, top), strict=True))
    file = files_of(data, "train")[image]
    with opened(Path(file)) as photo:
        part = photo.part((left, top, right, bottom), (bottom - top, right - left))
    mask = rle.decode(objects.truth[number])[top:bottom, left:right]
    kind = objects.classes[number]
    picture = draw.instances(part, [mask], [data.classes[kind]], [colors[kind].tolist()], TILE)
    return Figure(_source(picture), f"{area:,.0f} pixels, {100 * share:.2g} % of {Path(file).name}")


def areas_of(images: InstanceImages) -> list[tuple[float, float, int, int]]:
    """Area in pixels, share of its image, number of the image and number in it of each object, crowds apart."""
    return [
        (float(area), float(area) / (o.size[0] * o.size[1]), image, number)
        for image, o in enumerate(images.objects)
        for number, (area, crowd) in enumerate(zip(o.areas, o.crowd, strict=True))
        if not crowd
    ]


def sets_of(data: PhotoData) -> dict[Split, InMemoryImages]:
    """The images of each set."""
    assert data.train is not None
    return {"train": data.train, "val": data.val, "test": data.test}


def files_of(data: PhotoData, name: Split) -> list[str]:
    """The files of the images of a set, or their numbers in arrays."""
    return data.files_of(name) or [f"{name} {row}" for row in sets_of(data)[name].rows.tolist()]


def read_by(data: PhotoData) -> PhotoData:
    """The data module that reads the files of `data`."""
    return data.inner if isinstance(data, OwnData) else data


def _shown(data: PhotoData, number: int, frame: Sequence[int]) -> tuple[int, int]:
    """Height and width that a training image fills of its frame, at whose upper left it lies."""
    sizes = data.sizes_of("train")
    if not sizes or read_by(data).fit != "pad":
        return frame[0], frame[1]
    width, height = sizes[number]
    scale = min(frame[0] / height, frame[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def label_of(images: InMemoryImages, number: int, classes: Sequence[str]) -> str:
    """What an image without masks and objects is labelled with."""
    if isinstance(images, LabelledImages):
        return ", ".join(classes[k] for k in images.label_sets[number].nonzero().flatten().tolist()) or "no label"
    return classes[int(images.labels[number])]


def _source(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
