"""Take spoilt data sets through ``cv-lab data`` and one training step, and count how many end as they should.

    python scripts/benchmarks/fuzz_data.py --cases 1000

Each case spoils one file of a small data set (images, masks, COCO json, YOLO's yaml and txt, a csv of labels, names of
classes) or one value of its config: cut off, empty, bytes changed, of another type, NaN, huge, in another encoding,
with a byte order mark. A child process of limited memory and time then sets the data up, writes the tables and the page
of ``cv-lab data``, and trains one step. Half of the data sets are read by ``data=own``, which has to recognise them
first. A case should end with the step, or with a refusal in words. Counted are tracebacks (errors other than ValueError
and OSError), kills, hangs, and silent drops: fewer images than the spoilt data set has, of which nothing is said.
"""

import argparse
import collections
import io
import json
import logging
import multiprocessing
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image

from cv_lab.data.base import ImageData
from cv_lab.data.coco import Coco
from cv_lab.data.folder import ImageFolder
from cv_lab.data.labels_csv import LabelsCsv
from cv_lab.data.mask_folder import MaskFolder
from cv_lab.data.own import OwnData
from cv_lab.data.photos import PhotoData
from cv_lab.data.yolo import Yolo
from cv_lab.trial.look import look
from cv_lab.trial.look_page import write_page

COUNT = 12  # images of a data set
SECONDS, GIGABYTES = 60, 6  # of a child process
ODD: tuple[Any, ...] = (
    *(None, "", "x", -1, 0, 1e10, float("nan"), float("inf"), [], {}, [[]], "1", True, 10**30, "../..", "a\0b"),
    *("Übergröße\u2028", "$5_$", [1, 2], {"a": 1}),
)


def folder(root: Path) -> None:
    for number in range(COUNT):
        place = root / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        suffix = ("png", "jpg", "tif", "bmp")[number % 4]
        Image.fromarray(_pixels(number)).save(place / f"{number}.{suffix}")


def masks(root: Path) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(COUNT):
        Image.fromarray(_pixels(number)).save(root / f"images/{number}.jpg")
        Image.fromarray(_pixels(number)[..., 0] % 2).save(root / f"masks/{number}.png")
    (root / "classes.txt").write_text("background\nthing\n")


def coco(root: Path) -> None:
    masks(root)
    shutil.rmtree(root / "masks")
    (root / "classes.txt").unlink()
    corners = [[4, 4, 20, 4, 20, 20, 4, 20]]
    annotations = [
        {"id": k, "image_id": k, "category_id": 1 + k % 2, "segmentation": corners, "bbox": [4, 4, 16, 16], "area": 256}
        for k in range(COUNT)
    ]
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 32, "height": 24} for k in range(COUNT)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": annotations,
    }
    (root / "train.json").write_text(json.dumps(content))


def table(root: Path) -> None:
    folder(root)
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    rows = "".join(f"{path},{path.parent}\n" for path in files)
    (root / "labels.csv").write_text("file,label\n" + rows)


def yolo(root: Path) -> None:
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(COUNT):
        Image.fromarray(_pixels(number)).save(root / f"images/{number}.jpg")
        shapes = ("0.1 0.1 0.6 0.1 0.6 0.7", "0.2 0.3 0.8 0.3 0.8 0.9 0.2 0.9")
        (root / f"labels/{number}.txt").write_text("".join(f"{k} {shape}\n" for k, shape in enumerate(shapes)))
    (root / "data.yaml").write_text("path: .\ntrain: images\nnames:\n  0: a\n  1: b\n")


def own(target: str) -> Callable[[Path, dict[str, Any]], ImageData]:
    return lambda root, options: OwnData(str(root), target=target, **options)


SIZES = {"image_size": 16, "batch_size": 4}
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path, dict[str, Any]], ImageData], dict[str, Any]]] = {
    "folder": (
        folder,
        lambda root, options: ImageFolder(str(root), **options),
        {"image_size": 16, "batch_size": 4, "val_fraction": 0.25, "fit": "crop", "store": "pixels"},
    ),
    "packed": (
        folder,
        lambda root, options: ImageFolder(str(root), **options),
        {"image_size": 16, "batch_size": 4, "val_fraction": 0.25, "fit": "pad", "store": "jpeg"},
    ),
    "masks": (
        masks,
        lambda root, options: MaskFolder(str(root), **options),
        {"image_size": [16, 16], "batch_size": 4, "classes": None, "values": None},
    ),
    "table": (
        table,
        lambda root, options: LabelsCsv(str(root / "labels.csv"), **options),
        {"image_size": 16, "batch_size": 4, "separator": None},
    ),
    "coco": (
        coco,
        lambda root, options: Coco(
            str(root / "images"), str(root / "train.json"), str(root / "images"), str(root / "train.json"), **options
        ),
        {"image_size": [16, 16], "batch_size": 4, "train_images": None, "classes": None},
    ),
    "yolo": (
        yolo,
        lambda root, options: Yolo(str(root), **options),
        {"image_size": 16, "batch_size": 4, "names": None, "classes": None},
    ),
    "own folder": (folder, own("label"), {**SIZES, "val_fraction": 0.25}),
    "own masks": (masks, own("mask"), {**SIZES, "classes": None, "values": None, "colours": None}),
    "own table": (table, own("label"), {**SIZES, "validation": "split", "train_subset": None}),
    "own coco": (coco, own("instances"), {**SIZES, "classes": None, "seed": 0}),
    "own painted": (coco, own("mask"), {**SIZES, "classes": None, "val_subset": None}),
}


def _pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def spoil_bytes(content: bytes, dice: random.Random) -> bytes:
    """Change the content of any file."""
    place = dice.randrange(max(1, len(content)))
    half = max(1, len(content) // 2)
    changed = bytearray(content)
    for _ in range(dice.randrange(1, 20)):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return dice.choice(
        [
            b"",
            content[:place],
            content[half:],
            bytes(changed),
            b"\xef\xbb\xbf" + content,
            b"<html>not found</html>",
            content.decode("latin-1").encode("utf-16"),
            b"\0" * len(content),
            content + content,
        ]
    )


def spoil_json(text: str, dice: random.Random) -> str:
    """Replace, remove or double one value of a json."""
    value = json.loads(text)
    node: Any = value
    while True:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or dice.random() < 0.15:
            break
        node = inner
    action = dice.randrange(4)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = dice.choice(ODD)
    return json.dumps(value)


def spoil_text(text: str, dice: random.Random) -> str:
    """Change one line of a table or a list."""
    lines = text.splitlines()
    number = dice.randrange(len(lines))
    odd = str(dice.choice(ODD))
    lines[number] = dice.choice([odd, lines[number] + "," + odd, lines[number].replace(",", ";"), "", lines[0]])
    return "\n".join(lines) + "\n"


def spoil_image(path: Path, dice: random.Random) -> None:
    """Save an image in another mode, of another size or in another format than its name says."""
    with Image.open(path) as image:
        image.load()
    modes = ("1", "L", "P", "RGBA", "I;16", "F", "CMYK", "I")
    format = "TIFF" if (mode := dice.choice(modes)) in ("F", "CMYK", "I", "I;16") else "PNG"
    changed = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    if dice.random() < 0.3:
        changed = changed.resize(dice.choice([(1, 1), (1, 900), (24, 32), (3000, 2)]))
    changed.save(path, format)


def huge_png() -> bytes:
    """A PNG whose header promises 50,000 x 50,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    content = file.getvalue()
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def not_finite() -> bytes:
    """A TIFF of floats that are no numbers."""
    file = io.BytesIO()
    Image.fromarray(np.full((24, 32), np.nan, np.float32)).save(file, "TIFF")
    return file.getvalue()


def spoil(root: Path, options: dict[str, Any], dice: random.Random) -> str:
    """Spoil one thing of a data set or of `options`, and say which."""
    if dice.random() < 0.15:
        key = dice.choice(sorted(options))
        options[key] = dice.choice(ODD)
        return f"{key}={options[key]!r}"
    texts = [path for path in root.rglob("*") if path.suffix in (".json", ".csv", ".txt", ".yaml")]
    images = sorted(path for path in root.rglob("*.*") if path not in texts)
    path = dice.choice(texts) if texts and dice.random() < 0.5 else dice.choice(images)
    how = dice.randrange(4)
    if how == 0:
        path.unlink()
    elif how == 1:
        path.write_bytes(spoil_bytes(path.read_bytes(), dice))
    elif path.suffix == ".json":
        path.write_text(spoil_json(path.read_text(), dice))
    elif path.suffix in (".csv", ".txt", ".yaml"):
        path.write_text(spoil_text(path.read_text(), dice))
    elif dice.random() < 0.1:
        path.write_bytes(dice.choice((huge_png, not_finite))())
    else:
        spoil_image(path, dice)
    return f"{path.relative_to(root)}, way {how}"


class Told(logging.Handler):
    """Counts warnings."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno >= logging.WARNING


def attempt(kind: str, seed: int, root: Path) -> tuple[str, str]:
    """Run one case; its outcome, "trained", "refused", "traceback" or "silent drop", and a word on it."""
    dice = random.Random(seed)
    make, load, options = KINDS[kind]
    make(root)
    options = dict(options)
    what = f"{kind} {seed}: {spoil(root, options, dice)}"
    told = Told()
    logging.getLogger("cv_lab").addHandler(told)
    try:
        data = load(root, options)
        data.setup()
        assert isinstance(data, PhotoData)
        write_page(look(data, kind), data, root.parent / "page.html")
        batch = next(iter(data.train_dataloader()))
        images = data.normalise(batch["image"])
        head = torch.nn.Conv2d(3, len(data.classes), 1)
        loss = head(images).square().mean()
        loss.backward()
        if not torch.isfinite(loss):
            return "traceback", f"{what}: the loss is {loss}"
    except (ValueError, OSError) as error:
        return ("refused", f"{what}: {error}") if str(error) else ("traceback", f"{what}: {error!r}")
    except Exception:
        return "traceback", f"{what}\n{traceback.format_exc()}"
    finally:
        logging.getLogger("cv_lab").removeHandler(told)
    used = len(data.test) + len(data.train) + (0 if data.val is data.test else len(data.val))  # type: ignore[arg-type]
    within = root if make in (folder, table) else root / "images"
    present = len([path for path in within.rglob("*.*") if path.suffix in (".png", ".jpg", ".tif", ".bmp")])
    expected = 2 * present if kind == "coco" else present  # which also tests on the images that it trains on
    if used < expected and not told.count and not data.problems and "labels.csv" not in what and "way 0" not in what:
        return "silent drop", f"{what}: {used} of {expected} images"
    return "trained", what


def _child(connection: Connection, work: list[tuple[str, int]]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    for kind, seed in work:
        with tempfile.TemporaryDirectory() as folder:
            connection.send(attempt(kind, seed, Path(folder) / "data"))


def fuzz(cases: int, seed: int) -> dict[str, list[str]]:
    """Run `cases`; the words on them by outcome. A child process that ends or hangs is replaced."""
    work = [(list(KINDS)[number % len(KINDS)], seed * 1_000_003 + number) for number in range(cases)]
    outcomes: dict[str, list[str]] = collections.defaultdict(list)
    context = multiprocessing.get_context("fork")
    while work:
        here, there = context.Pipe()
        process = context.Process(target=_child, args=(there, work))
        process.start()
        there.close()
        try:
            while work:
                if not here.poll(SECONDS):
                    outcomes["hang"].append(f"{work[0]}")
                    break
                outcome, words = here.recv()
                outcomes[outcome].append(words)
                work = work[1:]
        except EOFError:
            outcomes["kill"].append(f"{work[0]}")
        if work:
            work = work[1:]
        process.kill()
        process.join()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="also the refusals")
    options = parser.parse_args()
    start = time.perf_counter()
    outcomes = fuzz(options.cases, options.seed)
    for outcome in ("refused",) * options.show + ("traceback", "kill", "hang", "silent drop"):
        for words in outcomes[outcome]:
            print(f"--- {outcome}: {words}")
    counts = ", ".join(f"{name} {len(outcomes[name])}" for name in ("trained", "refused"))
    faults = ", ".join(f"{name} {len(outcomes[name])}" for name in ("traceback", "kill", "hang", "silent drop"))
    print(f"{options.cases} cases in {time.perf_counter() - start:.0f} s: {counts}; {faults}")


if __name__ == "__main__":
    main()
