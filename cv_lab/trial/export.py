"""A trained trial as one file that runs with torch alone.

    cv-lab export studies/NAME/TRIAL/checkpoints/best.ckpt network.pt2

    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)  # of the size that the command prints
    probabilities = torch.export.load("network.pt2").module()(images)

Normalisation and scaling are inside. A classifier gives (N, K) probabilities, which sum to 1; a multi-label classifier
gives (N, K) probabilities, one of each label by itself; a segmenter gives (N, K, H, W). The names of the classes, and
height and width of the images, are in the file too, as JSON:

    extra = {"about.json": ""}
    torch.export.load("network.pt2", extra_files=extra)
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cv_lab.files import replacing
from cv_lab.trial.build import load_task
from cv_lab.trial.predict import add_loading


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` are its arguments, by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="file to write, NAME.pt2")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    add_loading(parser)
    options = parser.parse_args(argv)
    try:
        export(options.checkpoint, options.out, options.force, options.trust, options.weights)
    except (FileNotFoundError, NotImplementedError, ValueError) as error:
        sys.exit(f"error: {error}")


def export(
    checkpoint: Path, out: Path, force: bool = False, trusted: Sequence[str] = (), weights: Path | None = None
) -> None:
    """Write the task of `checkpoint` to `out`, for batches of any number of images.

    Args:
        checkpoint: of a trial.
        out: file to write.
        force: replace a file that exists.
        trusted: see :func:`~cv_lab.trial.build.load_task`.
        weights: see :func:`~cv_lab.trial.build.load_task`.

    Raises:
        NotImplementedError: if the task does not say what it predicts.
        ValueError: if the task's predictions are not one tensor, or `out` has another suffix than .pt2 or exists.
    """
    if out.suffix != ".pt2":
        raise ValueError(f"{out} must be called NAME.pt2, as torch.export's files are")
    if out.exists() and not force:
        raise ValueError(f"{out} exists already: give --force to replace it, or another name")
    task = load_task(checkpoint, trusted, weights)
    exported = task.exported()
    module = exported.module.requires_grad_(False)
    program = torch.export.export(module, (exported.example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    height, width = exported.example.shape[2:]
    about = {"classes": task.classes, "height": height, "width": width}
    content = io.BytesIO()  # torch refuses the name of a temporary file
    torch.export.save(program, content, extra_files={"about.json": json.dumps(about)})
    with replacing(out) as temporary:
        temporary.write_bytes(content.getvalue())
    classes = "1 class" if len(task.classes) == 1 else f"{len(task.classes)} classes"
    print(f"{out}: {classes}, images of {height} x {width} pixels")


if __name__ == "__main__":
    main()
