"""Photographs through the map of decoded pixels, against the usual pipeline of PIL transforms in a DataLoader.

    python scripts/benchmarks/photographs.py data/oxford-iiit-pet/images

An epoch gives all images once as normalised float batches. The first pass decodes and writes the map, and then gives
its epoch. A later trial opens the map, once, and then has cached epochs. Both sides use the same number of processors:
workers there, threads here.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cv_lab.data.in_memory import InMemoryImages, MappedRows, train_loader
from cv_lab.data.memory import keep_large_blocks
from cv_lab.data.preprocess import Preprocessing
from cv_lab.data.store import photographs

MEAN, STD, BATCH = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 64


class PilImages(Dataset[Tensor]):
    """As most tutorials write it."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.Resize(size),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def seconds(batches: Iterable[Tensor]) -> float:
    start = time.perf_counter()
    for batch in batches:
        assert batch.dtype == torch.float32
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    keep_large_blocks()  # as trials do
    files = sorted(arguments.folder.glob("*.jpg"))[: arguments.images]
    processors = len(os.sched_getaffinity(0))
    preprocess = Preprocessing(MEAN, STD)

    def open_or_decode(cache_dir: str) -> InMemoryImages:
        size = (arguments.size, arguments.size)
        stored = photographs(files, size, "crop", (124, 116, 104), cache_dir).pixels.permute(0, 3, 1, 2)
        pixels = MappedRows(stored, torch.arange(len(files)))
        return InMemoryImages(pixels, torch.zeros(len(files), dtype=torch.long), ("any",))

    def epoch(images: InMemoryImages) -> Iterable[Tensor]:
        for batch in train_loader(images, BATCH, seed=0, epoch=0):
            yield preprocess(batch["image"])

    def first_pass(cache_dir: str) -> Iterable[Tensor]:
        yield from epoch(open_or_decode(cache_dir))

    plain = PilImages(files, arguments.size)
    seconds([plain[0]])  # what is done on first use is not counted
    measured: dict[str, list[float]] = {"PIL": [], "first pass": [], "opening": [], "cached": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):  # in turns, so that other load falls on all alike
            measured["PIL"].append(seconds(DataLoader(plain, BATCH, shuffle=True, num_workers=processors)))
            measured["first pass"].append(seconds(first_pass(f"{folder}/{number}")))
            start = time.perf_counter()
            images = open_or_decode(f"{folder}/{number}")
            measured["opening"].append(time.perf_counter() - start)
            measured["cached"].append(seconds(epoch(images)))
    for side, times in measured.items():
        ratio = median(a / b for a, b in zip(measured["PIL"], times, strict=True))
        print(f"{side:10}  {median(times):6.2f} s  {len(files) / median(times):7.0f} images/s  {ratio:5.1f} x")


if __name__ == "__main__":
    main()
