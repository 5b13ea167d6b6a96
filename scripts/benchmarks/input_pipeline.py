"""The in-memory pipeline against torchvision's data set with PIL transforms, and against no pipeline at all.

    python scripts/benchmarks/input_pipeline.py [DATA_DIR]

Takes CIFAR-100 from DATA_DIR if it is there, else random images of the same kind.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import TINY, interleaved, print_machine, trainer_in_training
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import VisionDataset
from torchvision.transforms import v2

from cv_lab.data.augment import Augmentation, RandomCrop, RandomHorizontalFlip
from cv_lab.data.cifar import Cifar100
from cv_lab.data.in_memory import InMemoryImages, train_loader
from cv_lab.models.small_cnn import SmallCNN

BATCH = 128
IMAGES = 256 if TINY else 10_000  # an epoch of each side


def load(data_dir: str) -> InMemoryImages:
    """The first training images of CIFAR-100, or random ones."""
    if (Path(data_dir) / "cifar-100-python/train").exists():
        data = Cifar100(data_dir, verify_checksum=False)
        return data.load("train").subset(range(IMAGES))
    print(f"no CIFAR-100 in {data_dir}: random images")
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    return InMemoryImages(images, torch.randint(0, 100, (IMAGES,)), tuple(map(str, range(100))))


class PilImages(VisionDataset):
    """As torchvision's CIFAR100 does it: an array row, a PIL image, transforms one by one."""

    def __init__(self, images: InMemoryImages) -> None:
        self.arrays = images.images[:].permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(Cifar100.mean, Cifar100.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def main() -> None:
    images = load(sys.argv[1] if len(sys.argv) > 1 else "data")
    module = Cifar100(augmentation=Augmentation(crop=RandomCrop(0.125), flip=RandomHorizontalFlip()))
    module.trainer, module.classes = trainer_in_training(), images.classes
    pil: DataLoader[Any] = DataLoader(PilImages(images), BATCH, shuffle=True, num_workers=0, drop_last=True)
    epoch = iter(range(10**6))

    def ours() -> float:
        start = time.perf_counter()
        for batch in train_loader(images, BATCH, seed=0, epoch=next(epoch)):
            module.on_after_batch_transfer(batch, 0)
        return time.perf_counter() - start

    def theirs() -> float:
        start = time.perf_counter()
        for _ in pil:
            pass
        return time.perf_counter() - start

    network = SmallCNN(100).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    fixed = module.on_after_batch_transfer(next(iter(train_loader(images, BATCH, 0, 0))), 0)

    def step(batch: dict[str, torch.Tensor]) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch["image"]), batch["label"]).backward()
        optimizer.step()

    def compute_alone() -> float:
        start = time.perf_counter()
        for _ in range(IMAGES // BATCH):
            step(fixed)
        return time.perf_counter() - start

    def with_pipeline() -> float:
        start = time.perf_counter()
        for batch in train_loader(images, BATCH, seed=0, epoch=next(epoch)):
            step(module.on_after_batch_transfer(batch, 0))
        return time.perf_counter() - start

    print_machine()
    seconds = interleaved({"in memory": ours, "PIL": theirs})
    samples = IMAGES // BATCH * BATCH
    for name, value in seconds.items():
        print(f"{name:>14}: {samples / value:9,.0f} images/s")
    print(f"{'ratio':>14}: {seconds['PIL'] / seconds['in memory']:.1f}")
    seconds = interleaved({"compute alone": compute_alone, "with pipeline": with_pipeline})
    for name, value in seconds.items():
        print(f"{name:>14}: {value:.2f} s an epoch of {samples:,} images")
    print(f"{'ratio':>14}: {seconds['with pipeline'] / seconds['compute alone']:.3f}")


if __name__ == "__main__":
    main()
