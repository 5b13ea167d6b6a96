"""What a trained trial says of images of your own.

    cv-lab predict studies/NAME/TRIAL/checkpoints/best.ckpt photo.jpg folder/ --out predictions

Folders are read in depth. A classifier writes predictions.csv: the five most probable classes, and the probability of
each class; a multi-label classifier writes the probability and the decision for each label there. A segmenter writes
for each image NAME.png, the image beside its classes in colour, NAME_mask.png of the image's own size, whose pixels are
classes, and NAME_overlay.png of the same size. Mask R-CNN writes NAME.png, the image with its objects, and
detections.json: class, score, box and run lengths of each as in COCO's results, with the ids of the data set that
--json names. With --yolo it also writes NAME.txt, a line for each object as in YOLO's labels, and classes.txt.

Large images are predicted with --tile 512 in overlapping tiles of so many pixels, each scaled to the network's size:
masks are blended, and objects that two tiles find are merged.

Images that cannot be read are listed at the end, and the exit code is then 1. Files that exist are replaced with
--force alone. A checkpoint of a frozen backbone holds the head alone: name the backbone's file with --weights if it has
moved. Code of your own runs if its module is named with --trust.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cv_lab.data.pixels import suffixes
from cv_lab.files import read_json, write_csv, write_json, write_text
from cv_lab.pictures.objects import yolo_line
from cv_lab.tasks.base import Photo, Task
from cv_lab.trial.build import load_task
from cv_lab.trial.predictor import BATCH_SIZE, predict_batch
from cv_lab.trial.tiles import open_whole, predict_tiles

NAMED = 5  # files in a message
SMALLEST_TILE = 16  # pixels
CLASSES = "classes.txt"  # beside YOLO's labels, which number the lines of it


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` are its arguments, by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument(
        "--score", type=float, default=0.5, help="objects below it are left out, labels up to it are not given"
    )
    parser.add_argument("--force", action="store_true", help="replace files of earlier predictions")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="of a COCO data set, whose ids detections.json then has"
    )
    parser.add_argument("--yolo", action="store_true", help="write objects as YOLO's labels, too: NAME.txt")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="predict in overlapping tiles of this side")
    add_loading(parser)
    options = parser.parse_args(argv)
    try:
        files = images_in(options.images, options.out)
        problems = predict(
            loaded(options), files, options.out, options.score, options.force, options.json, options.yolo, options.tile
        )
    except (FileNotFoundError, NotImplementedError, ValueError) as error:
        sys.exit(f"error: {error}")
    done = len(files) - len(problems)
    print(f"{done} {'image' if done == 1 else 'images'}: {options.out}")
    if problems:
        sys.exit("\n".join([f"{len(problems)} of {len(files)} images could not be read:", *problems]))


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a checkpoint is loaded, see :func:`loaded`."""
    parser.add_argument(
        "--trust", action="append", default=[], metavar="MODULE", help="module of your own that the checkpoint may run"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of the frozen backbone, if its file has moved")


def loaded(options: argparse.Namespace) -> Task:
    """The task of the checkpoint that `options` name."""
    return load_task(options.checkpoint, options.trust, options.weights)


def images_in(paths: Sequence[Path], out: Path) -> list[Path]:
    """The files among `paths`, and the images in folders among them, in depth; each once.

    Where `out` is a folder within one of them, what it holds are earlier predictions, and is left out.

    Raises:
        FileNotFoundError: if a path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inner = _lies_in(out, path) and not _lies_in(path, out)
            found = [
                file for file in sorted(path.rglob("*")) if _is_image(file) and not (inner and _lies_in(file, out))
            ]
            if not found:
                raise FileNotFoundError(f"{path} holds no images")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"there is no {path}")
    return list({os.path.abspath(file): file for file in files}.values())


def predict(
    task: Task,
    files: Sequence[Path],
    out: Path,
    score: float,
    force: bool,
    coco: Path | None = None,
    yolo: bool = False,
    tile: int | None = None,
) -> list[str]:
    """Predict for `files` in batches and write the results to the folder `out`.

    Args:
        task: a loaded one.
        files: images.
        out: is created if it does not exist.
        score: see :meth:`~cv_lab.tasks.base.Task.write`.
        force: replace files that exist.
        coco: json of a COCO data set, whose ids objects get; see :func:`coco_ids`.
        yolo: write objects as YOLO's labels, too, see :func:`~cv_lab.pictures.objects.yolo_line`.
        tile: side in pixels of tiles that images are predicted in; None predicts for whole images.

    Returns:
        A message for each file that could not be read.

    Raises:
        ValueError: if files exist already, if two images would be written to one file, or a result over an image; if
            `coco` or `yolo` is given for a task that finds no objects, or `tile` for one that says one thing of an
            image.
        NotImplementedError: if the task does not say what it predicts.
    """
    objects = task.target in ("instances", "boxes")
    if (coco or yolo) and not objects:
        raise ValueError(f"--json and --yolo are for objects, but the checkpoint's {type(task).__name__} finds none")
    if tile is not None and (task.target in ("label", "labels") or tile < SMALLEST_TILE):
        raise ValueError(f"--tile {tile}: tiles are for masks and objects, and of at least {SMALLEST_TILE} pixels")
    images, categories = coco_ids(files, task.classes, coco)
    names = names_of(files)
    _check_outputs(task, dict(zip(names, files, strict=True)), out, force, yolo)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for name, photo, prediction in _predictions(task, dict(zip(names, files, strict=True)), tile, score, problems):
        new_rows, words = task.write(photo, prediction, out, name, score)
        if yolo:
            lines = [yolo_line(row, task.classes.index(row["class"]), photo.size) + "\n" for row in new_rows]
            write_text(out / f"{name}.txt", "".join(lines))
        if objects:
            ids = {"image_id": images[photo.path]}
            new_rows = [{**row, **ids, "category_id": categories[row["class"]]} for row in new_rows]
        rows += new_rows
        print(f"{photo.path}: {words}")
    if task.table is not None and len(problems) < len(files):
        write = write_json if task.table.endswith(".json") else write_csv
        write(out / task.table, rows)
    if yolo:
        write_text(out / CLASSES, "".join(f"{name}\n" for name in task.classes))
    return problems


def _predictions(
    task: Task, named: Mapping[str, Path], tile: int | None, score: float, problems: list[str]
) -> Iterator[tuple[str, Photo, Any]]:
    """Name, photo and prediction, as a batch of one, of each file; `problems` gets a line for those not readable."""
    names, size = list(named), 1 if tile else BATCH_SIZE
    for start in range(0, len(names), size):
        photos: dict[str, Photo] = {}
        for name in names[start : start + size]:
            file = named[name]
            try:
                photos[name] = open_whole(file) if tile else task.open_photo(file)
            except Exception as error:  # Pillow raises many kinds of errors; continue with the other images
                problems.append(f"{file}: {error}" if str(file) not in str(error) else str(error))
        if tile:
            yield from ((name, photo, predict_tiles(task, photo, tile, score)) for name, photo in photos.items())
        elif photos:
            outputs = predict_batch(task, list(photos.values()))
            yield from ((name, photo, outputs[i : i + 1]) for i, (name, photo) in enumerate(photos.items()))


def coco_ids(
    files: Sequence[Path], classes: Sequence[str], coco: Path | None
) -> tuple[dict[Path, int], dict[str, int]]:
    """The ids of images by file and of categories by name, in the json file `coco`; None counts both from 1.

    Raises:
        ValueError: if the json is not of COCO's form, does not have one of the classes, or not exactly one image of a
            file's name.
    """
    if coco is None:
        return {file: i for i, file in enumerate(files, 1)}, {name: i for i, name in enumerate(classes, 1)}
    try:
        content = read_json(coco)
        categories = {str(one["name"]): one["id"] for one in content["categories"]}
        images = [(Path(one["file_name"]).parts, one["id"]) for one in content["images"]]
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--json {coco} is no COCO data set with images and categories: {error!r}") from error
    if missing := [name for name in classes if name not in categories]:
        raise ValueError(f"--json {coco} has no category {', '.join(missing)}, which the checkpoint finds")
    ids: dict[Path, int] = {}
    for file in files:
        parts = Path(os.path.abspath(file)).parts
        found = [number for name, number in images if parts[-len(name) :] == name]
        if len(found) != 1:
            raise ValueError(f"--json {coco} names {len(found)} images {file}, where there must be one")
        ids[file] = found[0]
    return ids, categories


def names_of(files: Sequence[Path]) -> list[str]:
    """A name for each of `files`: its path below the folder that all have in common, without the suffix.

    Files of a folder that differ in their suffix alone keep it.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    common = os.path.commonpath([path.parent for path in paths])
    counts = Counter(path.with_suffix("") for path in paths)
    named = [path.with_suffix("") if counts[path.with_suffix("")] == 1 else path for path in paths]
    return [path.relative_to(common).as_posix() for path in named]


def _check_outputs(task: Task, images: dict[str, Path], out: Path, force: bool, yolo: bool) -> None:
    """Refuse to write over anything, before anything is predicted."""
    given = {os.path.abspath(file) for file in images.values()}
    tables = [table for table in (task.table, CLASSES if yolo else None) if table is not None]
    writers = {os.path.abspath(out / table): Path(table) for table in tables}
    for name, image in images.items():
        for file in [*task.files(name), *([f"{name}.txt"] if yolo else [])]:
            target = os.path.abspath(out / file)
            if target in writers:
                raise ValueError(
                    f"{writers[target]} and {image} would both be written to {out / file}: give them another --out each"
                )
            if target in given:
                raise ValueError(f"{out / file} is one of the images, and would be replaced: give another --out")
            writers[target] = image
    existing = [target for target in writers if os.path.exists(target)]
    if existing and not force:
        more = f" and {len(existing) - NAMED} more" if len(existing) > NAMED else ""
        raise ValueError(
            f"{', '.join(os.path.relpath(target) for target in existing[:NAMED])}{more} exist already: give --force to "
            "replace them, or another --out"
        )


def _is_image(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in suffixes() and not file.name.startswith(".")


def _lies_in(file: Path, folder: Path) -> bool:
    return Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder))


if __name__ == "__main__":
    main()
