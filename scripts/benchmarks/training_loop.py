"""A trial's training loop against a bare PyTorch loop that does the same work with the same metrics.

python scripts/benchmarks/training_loop.py
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from common import TINY, interleaved, print_machine, trainer_in_training
from pytorch_lightning import Trainer
from torch import nn

from cv_lab.callbacks.finite import RequireFiniteLoss
from cv_lab.callbacks.history import EpochHistory
from cv_lab.callbacks.progress import TerminalBar
from cv_lab.callbacks.reseed import ReseedEachEpoch
from cv_lab.callbacks.timing import Timing
from cv_lab.data.augment import Augmentation, RandomCrop, RandomHorizontalFlip
from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.models.small_cnn import SmallCNN
from cv_lab.tasks.classification import Classification

STEPS, BATCH = 5 if TINY else 150, 32


class RandomImages(ImageData):
    """Random images of CIFAR's kind."""

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def load(self, split: Split) -> InMemoryImages:
        count = STEPS * BATCH if split == "train" else 100
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        return InMemoryImages(images, torch.randint(0, 100, (count,)), tuple(map(str, range(100))))


def main() -> None:
    augmentation = Augmentation(crop=RandomCrop(), flip=RandomHorizontalFlip())
    data = RandomImages(batch_size=BATCH, augmentation=augmentation, validation="test")
    data.setup()
    folder = Path(tempfile.mkdtemp())

    def new_task() -> Classification:
        return Classification(
            partial(SmallCNN, width=12), data.classes, nn.CrossEntropyLoss(), partial(torch.optim.Adam, lr=1e-3)
        )

    def lab() -> float:
        timing = Timing()
        callbacks = [
            ReseedEachEpoch(0),
            RequireFiniteLoss(),
            timing,
            TerminalBar(),
            EpochHistory(folder / "h.csv", timing),
        ]
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=callbacks,
            logger=False,
            limit_val_batches=0,
            enable_checkpointing=True,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(new_task(), data)
        return timing.train_seconds / STEPS

    def bare() -> float:
        task = new_task()
        optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
        metrics = task.split_metrics("train")
        data.trainer = trainer_in_training()
        loader = data.train_dataloader()
        start = time.perf_counter()
        for batch in loader:
            batch = data.on_after_batch_transfer(batch, 0)
            logits = task.model(batch["image"])
            loss = task.loss(logits, batch["label"])
            metrics.loss.update(loss, len(logits))
            metrics.confusion.update(logits.argmax(1), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - start) / STEPS

    print_machine()
    seconds = interleaved({"bare loop": bare, "lab": lab}, rounds=5)
    for name, value in seconds.items():
        print(f"{name:>10}: {1000 * value:.2f} ms a step of {BATCH} images")
    print(f"{'ratio':>10}: {seconds['lab'] / seconds['bare loop']:.3f}")


if __name__ == "__main__":
    main()
