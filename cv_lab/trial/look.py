"""Look at data of one's own without training: what is recognised, what is dropped, and sample images on a page.

cv-lab data my_images [--task TASK] [--out FOLDER]
"""

import argparse
import base64
import html
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch.nn.functional import interpolate

from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.instances import InstanceImages
from cv_lab.data.label_sets import LabelledImages
from cv_lab.data.own import OwnData
from cv_lab.data.recognise import TASKS, recognise
from cv_lab.files import write_csv, write_text
from cv_lab.pictures import draw

SAMPLES = 24  # images of the training set on the page
BITS = 2  # of 64 in which the hashes of near-duplicates differ at most
RARE = 10  # a class with this fraction of the most frequent one's images, or less, is called rare
CSS = Path(__file__).parents[1] / "report" / "page.css"


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at the data that `arguments` name; None takes those of the process.

    Raises:
        SystemExit: if they cannot be used.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a folder, or a file (CSV, npz)")
    names = {task.removeprefix("task="): target for target, task in TASKS.items() if target != "boxes"}
    names["object_detection"] = "boxes"
    parser.add_argument("--task", choices=names, help="by default the first that the data serve")
    parser.add_argument("--out", type=Path, default=Path("data_report"), help="folder of the page and tables")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        root = given.path.expanduser()
        target = names[given.task] if given.task else _target(root)
        sized = target in ("label", "labels") and "image_size" in recognise(root, target).takes
        data = OwnData(str(root), target=target, image_size=128 if sized else None, val_fraction=0.15)
        data.setup()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if (given.out / "index.html").exists() and not (given.out / "dropped.csv").exists():
        sys.exit(f"error: {given.out} holds an index.html of something else: give another folder with --out")
    write(data, given.out)
    print(f"page and tables: {given.out / 'index.html'}")


def write(data: OwnData, folder: Path) -> None:
    """Write ``index.html``, ``classes.csv``, ``dropped.csv`` and ``duplicates.csv``, and print the tables."""
    classes, duplicates = class_table(data), near_duplicates(data)
    dropped = [
        {"set": str(problems.source), "what": what, "kind": kind, "example": example}
        for problems in data.inner.settled
        for what, kinds in (("dropped", problems.dropped), ("noted", problems.noted))
        for kind, examples in kinds.items()
        for example in examples
    ]
    for name, rows in (("classes", classes), ("dropped", dropped), ("duplicates", duplicates)):
        write_csv(folder / f"{name}.csv", rows)
    advice = remarks(classes, duplicates)
    for row in classes:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print("\n".join(advice))
    parts = [
        f"<h1>{html.escape(str(data.root))}</h1><p>{html.escape(f'{data.layout.name}, {data.layout.about}')}</p>",
        "".join(f"<p>{html.escape(line)}</p>" for line in advice),
        "<h2>Classes</h2>" + _bars(classes) + _table(classes),
        "<h2>Training images</h2>" + _picture(samples(data)),
        "<h2>Dropped and noted</h2>" + (_table(dropped[:100]) or "<p>Nothing.</p>"),
        "<h2>Near-duplicates across sets</h2>" + (_table(duplicates[:100]) or "<p>None.</p>"),
    ]
    head = f"<!doctype html><meta charset=utf-8><title>Data</title><style>{CSS.read_text()}</style>"
    write_text(folder / "index.html", f"{head}<main>{''.join(parts)}</main>")


def class_table(data: OwnData) -> list[dict[str, Any]]:
    """Images, pixels or objects of each class in each set."""
    counts = {name: images.class_counts().counts.tolist() for name, images in _sets(data).items()}
    return [{"class": name, **{s: counts[s][k] for s in counts}} for k, name in enumerate(data.classes)]


def near_duplicates(data: OwnData) -> list[dict[str, Any]]:
    """Pairs of images in different sets that look alike: their difference hashes differ in at most `BITS` of 64."""
    sets = _sets(data)
    hashes = {name: difference_hashes(images) for name, images in sets.items()}
    names = list(sets)
    found = []
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            for i, own in enumerate(hashes[one]):
                for j in np.flatnonzero((own != hashes[other]).sum(1) <= BITS).tolist():
                    found.append({one: file_of(data, one, i), other: file_of(data, other, j)})
    return [
        {"one": next(iter(pair.values())), "other": list(pair.values())[1], "sets": "/".join(pair)} for pair in found
    ]


def difference_hashes(images: InMemoryImages) -> NDArray[np.bool_]:
    """Whether each of 8 x 8 areas is brighter than its right neighbour, bool (N, 64)."""
    parts = []
    for rows in torch.arange(len(images)).split(256):
        grey = images.images[rows].float().mean(1, keepdim=True)
        small = interpolate(grey, (8, 9), mode="area")[:, 0]
        parts.append((small[:, :, :-1] > small[:, :, 1:] + 0.5).flatten(1).numpy())
    return np.concatenate(parts)


def file_of(data: OwnData, name: str, number: int) -> str:
    """The file of an image of a set, or its number in arrays."""
    splits = [split for split in data.inner.splits() if split != "val" or data.validation != "test"]
    files = dict(zip(splits, data.inner.files, strict=False))
    source = (
        files.get("test", []) if name == "test" and "test" in splits else files.get("train", []) + files.get("val", [])
    )
    row = int(_sets(data)[name].rows[number])
    return source[row] if row < len(source) else f"{name} {row}"


def remarks(classes: Sequence[dict[str, Any]], duplicates: Sequence[dict[str, Any]]) -> list[str]:
    """Ordinary mistakes, with what to do about them."""
    lines = []
    most = max(row["train"] for row in classes)
    if rare := [row["class"] for row in classes if row["train"] * RARE <= most]:
        lines.append(
            f"Rare in the training set (a tenth of the most frequent class or less): {', '.join(rare)}. Give more "
            "images of them, or weigh classes, such as by loss=weighted_cross_entropy."
        )
    for name in ("val", "test"):
        if absent := [row["class"] for row in classes if row[name] == 0]:
            lines.append(f"Not in the {name} set, so that nothing is known of them: {', '.join(absent)}.")
    if duplicates:
        lines.append(
            f"{len(duplicates)} pairs of images in different sets look alike (duplicates.csv): if they are the same, "
            "figures are too good. Keep one of each, or put both into one set."
        )
    return lines


def samples(data: OwnData) -> Image.Image:
    """Training images with what they are annotated with."""
    train = data.train
    assert train is not None
    chosen = np.random.default_rng(0).permutation(len(train))[:SAMPLES].tolist()
    colors = draw.mask_palette(data.classes, data.classes.index("background") if "background" in data.classes else None)
    tiles = []
    for number in chosen:
        pixels = train.images[torch.tensor([number])][0].permute(1, 2, 0).numpy()
        if isinstance(train, InstanceImages):
            objects = train.objects[number]
            labels = [data.classes[k] for k in objects.classes]
            masks = [rle.decode(mask) for mask in objects.masks]
            tiles.append(draw.instances(pixels, masks, labels, [colors[k].tolist() for k in objects.classes]))
        elif train.masks is not None:
            tiles.append(Image.fromarray(draw.overlay(pixels, train.masks[torch.tensor([number])][0].numpy(), colors)))
        else:
            tiles.append(draw.beside([Image.fromarray(pixels)], _label(train, number, data.classes)))
    return draw.grid(tiles, columns=6)


def _label(images: InMemoryImages, number: int, classes: Sequence[str]) -> str:
    if isinstance(images, LabelledImages):
        return ", ".join(classes[k] for k in images.label_sets[number].nonzero().flatten().tolist()) or "-"
    return classes[int(images.labels[number])]


def _sets(data: OwnData) -> dict[str, InMemoryImages]:
    assert data.train is not None
    return {"train": data.train, "val": data.val, "test": data.test}


def _target(root: Path) -> str:
    """The first target that the data serve, objects before masks painted from them."""
    for target in ("label", "labels", "instances", "boxes"):
        try:
            recognise(root, target)
            return target
        except ValueError:
            continue
    return "mask"  # which says what is wrong, if it is none either


def _bars(classes: Sequence[dict[str, Any]]) -> str:
    most = max(1, *(row["train"] for row in classes))
    bar = (
        '<div style="display:flex;gap:8px"><span style="width:12em">{}</span>'
        '<div style="background:#4477aa;width:{}px"></div></div>'
    )
    return "".join(bar.format(html.escape(row["class"]), round(400 * row["train"] / most)) for row in classes)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = ["".join(f"<th>{html.escape(key)}</th>" for key in rows[0])]
    lines += ["".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _picture(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f'<img style="max-width:100%" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
