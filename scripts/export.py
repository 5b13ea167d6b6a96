"""A trained trial as one file that runs with torch alone.

    python scripts/export.py studies/NAME/TRIAL/checkpoints/best.ckpt network.pt2

    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)  # of the size that the script tells
    probabilities = torch.export.load("network.pt2").module()(images)

Normalisation and scaling are inside. A classifier gives (N, K) probabilities, a segmenter (N, K, H, W). The names of
the classes, and height and width of the images, are in the file too, as JSON:

    extra = {"about.json": ""}
    torch.export.load("network.pt2", extra_files=extra)
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from cv_lab.files import replacing
from cv_lab.tasks.base import Task
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.trial.build import load_task


class Predictor(nn.Module):
    """A task with what its images go through before, and its probabilities."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model.to(memory_format=torch.contiguous_format)  # as torch.export wants it
        self.preprocessing = task.preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) to float32 (N, K) or (N, K, H, W)."""
        return self.model(self.preprocessing(images)).softmax(1)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="file to write, NAME.pt2")
    options = parser.parse_args(arguments)
    try:
        export(options.checkpoint, options.out)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")


def export(checkpoint: Path, out: Path) -> None:
    """Write the task of `checkpoint` to `out`, for batches of any number of images.

    Raises:
        ValueError: if it is Mask R-CNN, whose number of objects depends on the image, or `out` is not called so.
    """
    if out.suffix != ".pt2":
        raise ValueError(f"{out} must be called NAME.pt2, as torch.export's files are")
    task = load_task(checkpoint)
    if isinstance(task, InstanceSegmentation):
        raise ValueError("Mask R-CNN finds another number of objects in each image, which torch.export cannot follow")
    assert task.image_size is not None
    height, width = task.image_size
    predictor = Predictor(task).eval().requires_grad_(False)
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    program = torch.export.export(predictor, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    about = {"classes": task.classes, "height": height, "width": width}
    content = io.BytesIO()  # torch refuses the name of a temporary file
    torch.export.save(program, content, extra_files={"about.json": json.dumps(about)})
    with replacing(out) as temporary:
        temporary.write_bytes(content.getvalue())
    print(f"{out}: {len(task.classes)} classes, images of {height} x {width} pixels")


if __name__ == "__main__":
    main(sys.argv[1:])
