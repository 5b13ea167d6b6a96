"""A folder of generated photographs, packed and then read by trials: speed, first batch and memory.

    python scripts/benchmarks/large_folder.py --images 10000 100000

For each number of images, in processes of their own: the seconds to pack them, against those of reading the files; the
seconds from the start of a second trial's data module to its first batch; decoded random crops a second; the largest
anonymous memory of that process, which pages of the mapped file are no part of; and crops a second of four
processes that read one copy together. Photographs are 500 x 375 pixels, JPEG of quality 90; few of them are drawn, and
the others are copies with other bytes behind their end.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image

from cv_lab.data.augment import Augmentation, RandomResizedCrop
from cv_lab.data.folder import ImageFolder

DRAWN, BATCH = 50, 64


def generate(root: Path, count: int) -> None:
    """Write `count` photographs of two classes."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWN):
        coarse = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
        noisy = np.asarray(coarse).astype(int) + random.integers(-12, 12, (375, 500, 3))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        drawn.append(file.getvalue())
    for number in range(count):
        folder = root / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(drawn[number % DRAWN] + str(number).encode())


def trial(root: str, cache: str, batches: int) -> dict[str, float]:
    """What one trial's data module costs until and after its first batch."""
    start = time.perf_counter()
    crop = RandomResizedCrop(scale=(0.08, 1.0))
    data = ImageFolder(
        root, image_size=224, store="jpeg", cache_dir=cache, batch_size=BATCH, augmentation=Augmentation(crop=crop)
    )
    data.setup()
    loader = iter(data.train_dataloader())
    next(loader)
    first = time.perf_counter()
    for _ in range(batches):
        next(loader)
    seconds = time.perf_counter() - first
    (anonymous,) = re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return {"first": first - start, "rate": batches * BATCH / seconds, "memory": int(anonymous) / 1e6}


def started(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, __file__, "--trial", *arguments], stdout=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> dict[str, float]:
    out, _ = process.communicate()
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--batches", type=int, default=10, help="measured of each trial")
    parser.add_argument("--trial", nargs=3, metavar=("ROOT", "CACHE", "BATCHES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trial:
        torch.set_num_threads(2)
        print(json.dumps(trial(options.trial[0], options.trial[1], int(options.trial[2]))))
        return
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            root, cache, batches = Path(folder) / "photographs", f"{folder}/cache", str(options.batches)
            generate(root, count)
            start = time.perf_counter()
            size = sum(len(path.read_bytes()) for path in root.rglob("*.jpg")) / 1e6
            reading = time.perf_counter() - start
            packing = result(started(str(root), cache, "1"))["first"]
            second = result(started(str(root), cache, batches))
            four = [started(str(root), cache, batches) for _ in range(4)]
            together = sum(result(process)["rate"] for process in four)
            print(
                f"{count:,} images, {size:,.0f} MB: read in {reading:.1f} s, packed in {packing:.1f} s; "
                f"second trial: first batch after {second['first']:.1f} s, {second['rate']:.0f} crops/s, "
                f"{second['memory']:.2f} GB; "
                f"four trials: {together:.0f} crops/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
