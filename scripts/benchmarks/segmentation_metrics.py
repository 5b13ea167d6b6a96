"""What segmentation metrics cost: their share of a validation epoch, against torchmetrics' default, and their memory.

python scripts/benchmarks/segmentation_metrics.py
"""

import subprocess
import sys
import time

import torch
from common import TINY, interleaved, print_machine
from pytorch_lightning import Trainer
from torch import Tensor
from torch.optim import Adam
from torchmetrics.classification import MulticlassJaccardIndex

from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages, eval_loader
from cv_lab.labels import IGNORE
from cv_lab.models.segmentation import SmallUNet
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.losses import CrossEntropy
from cv_lab.training.metrics import SplitMetrics, classes_of, mean_iou
from cv_lab.trial.hardware import peak_memory_mb

CLASSES, SIZE, BATCH, IMAGES = 21, 128, 16, 16 if TINY else 96
MEMORY_IMAGES = (16,) if TINY else (64, 512)  # of a validation epoch each


def repeated_images(count: int) -> InMemoryImages:
    """One random image `count` times, which takes no memory of its own."""
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8).expand(count, -1, -1, -1)
    mask = torch.randint(0, CLASSES, (1, SIZE, SIZE), dtype=torch.uint8)
    mask[:, :4] = IGNORE
    labels = torch.zeros(count, dtype=torch.long)
    return InMemoryImages(image, labels, tuple(map(str, range(CLASSES))), masks=mask.expand(count, -1, -1))


class RepeatedImages(ImageData):
    """`count` images to validate on."""

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    targets, target = ("mask",), "mask"

    def __init__(self, count: int) -> None:
        super().__init__(BATCH, validation="test")
        self.count = count

    def load(self, split: Split) -> InMemoryImages:
        return repeated_images(BATCH if split == "train" else self.count)


def seconds() -> None:
    """Print the metrics' share of an epoch, and how many times as long torchmetrics' default takes."""
    network, loss = SmallUNet(CLASSES).eval().to(memory_format=torch.channels_last), CrossEntropy()
    loader = eval_loader(repeated_images(IMAGES), BATCH)
    batches = [(b["image"].float().contiguous(memory_format=torch.channels_last), b["mask"].long()) for b in loader]
    spent = {"epoch": 0.0}

    def epoch(update: object, compute: object) -> float:
        """Seconds in metrics of one validation epoch; those of all of it are noted."""
        assert callable(update)
        assert callable(compute)
        start, inside = time.perf_counter(), 0.0
        for image, mask in batches:
            logits = network(image)
            value = loss(logits, mask)
            before = time.perf_counter()
            update(logits, mask, value)
            inside += time.perf_counter() - before
        before = time.perf_counter()
        compute()
        spent["epoch"] = time.perf_counter() - start
        return inside + time.perf_counter() - before

    ours, theirs = SplitMetrics(CLASSES, IGNORE), MulticlassJaccardIndex(CLASSES, ignore_index=IGNORE)

    def update_ours(logits: Tensor, mask: Tensor, value: Tensor) -> None:
        ours.loss.update(value, len(logits))
        ours.confusion.update(classes_of(logits), mask)

    def lab() -> float:
        ours.confusion.reset()
        inside = epoch(update_ours, lambda: mean_iou(ours.confusion.compute()))
        shares.append(inside / spent["epoch"])
        return inside

    def default() -> float:
        theirs.reset()
        return epoch(lambda logits, mask, value: theirs.update(logits, mask), theirs.compute)

    shares: list[float] = []
    with torch.inference_mode():
        medians = interleaved({"lab": lab, "torchmetrics": default})
        same = abs(mean_iou(ours.confusion.compute()).item() - theirs.compute().item())
    print(f"{CLASSES} classes, {SIZE} x {SIZE} pixels, batches of {BATCH}, {IMAGES} images, channels last")
    print(f"metrics take {100 * sorted(shares)[len(shares) // 2]:.1f} % of a validation epoch of a small U-Net")
    ms = {name: 1e3 * value / IMAGES for name, value in medians.items()}
    print(
        f"{ms['lab']:.2f} ms an image; torchmetrics' default {ms['torchmetrics']:.2f} ms, "
        f"{ms['torchmetrics'] / ms['lab']:.1f} times as long; mean IoU differs by {same:.1e}"
    )


def memory(count: int) -> None:
    """Validate on `count` images and print this process's peak memory."""
    task = SemanticSegmentation(SmallUNet, tuple(map(str, range(CLASSES))), CrossEntropy(), Adam)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(task, RepeatedImages(count), verbose=False)
    print(peak_memory_mb(torch.device("cpu")))


def main() -> None:
    if len(sys.argv) > 1:
        memory(int(sys.argv[1]))
        return
    print_machine()
    seconds()
    for count in MEMORY_IMAGES:
        answer = subprocess.run([sys.executable, __file__, str(count)], capture_output=True, text=True, check=True)
        logits = count * CLASSES * SIZE**2 * 4 / 1e6
        peak = float(answer.stdout.split()[-1])
        print(f"peak memory of validating {count} images: {peak:.0f} MB (their logits would take {logits:.0f} MB)")


if __name__ == "__main__":
    main()
