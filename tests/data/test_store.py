"""Images and masks of every task are decoded once, and again when they have changed or are damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cv_lab.data.base import ImageData
from cv_lab.data.coco import Coco
from cv_lab.data.folder import ImageFolder
from cv_lab.data.mask_folder import MaskFolder


def photographs(root: Path, **options: Any) -> ImageData:
    for number in range(4):
        folder = root / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / f"{number}.png").exists():
            Image.new("RGB", (20, 20), (60 * number, 0, 0)).save(folder / f"{number}.png")
    return ImageFolder(str(root), image_size=8, **options)


def masks(root: Path, **options: Any) -> ImageData:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(4):
        if not (root / f"images/{number}.png").exists():
            Image.new("RGB", (20, 20), (60 * number, 0, 0)).save(root / f"images/{number}.png")
            Image.fromarray(np.full((20, 20), number % 2, np.uint8)).save(root / f"masks/{number}.png")
    return MaskFolder(str(root), ["a", "b"], image_size=[8, 8], **options)


def objects(root: Path, target: str = "instances", **options: Any) -> ImageData:
    masks(root)
    polygon = {"segmentation": [[2, 2, 18, 2, 18, 18]], "bbox": [2, 2, 16, 16], "category_id": 1}
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 20, "height": 20} for n in range(4)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": n, "image_id": n, **polygon} for n in range(4)],
    }
    if not (root / "a.json").exists():
        (root / "a.json").write_text(json.dumps(content))
    where = (str(root / "images"), str(root / "a.json"))
    return Coco(*where, *where, image_size=[8, 8], target=target, **options)


def painted(root: Path, **options: Any) -> ImageData:
    return objects(root, "mask", **options)


Make = Callable[..., ImageData]
KINDS = pytest.mark.parametrize("make", [photographs, masks, objects, painted])


def content(data: ImageData) -> list[torch.Tensor]:
    images = data.load("train")
    return [images.images[:], *([images.masks[:]] if images.masks is not None else [])]


@KINDS
def test_pixels_are_decoded_once_and_are_those_without_a_store(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    plain = content(make(tmp_path / "data"))
    first = content(make(tmp_path / "data", cache_dir=str(tmp_path / "cache")))
    caplog.clear()
    (tmp_path / "data").rename(tmp_path / "moved")
    again = content(make(tmp_path / "moved", cache_dir=str(tmp_path / "cache")))
    assert "decoding" not in caplog.text
    for one, other, third in zip(plain, first, again, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


@KINDS
@pytest.mark.parametrize("change", ["image", "damage", "missing"])
def test_what_has_changed_is_decoded_anew(make: Make, change: str, tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path / "cache")}
    before = content(make(tmp_path / "data", **options))[0]
    if change == "image":
        path = next((tmp_path / "data").rglob("0.png"))
        Image.new("RGB", (20, 20), (0, 250, 0)).save(path)
        assert content(make(tmp_path / "data", **options))[0][0, :, 2, 2].tolist() == [0, 250, 0]
        return
    for path in (tmp_path / "cache/pixels").glob("*.safetensors"):
        damaged = bytearray(path.read_bytes())
        damaged[-200 if len(damaged) > 9000 else -1] ^= 255
        path.write_bytes(damaged) if change == "damage" else path.unlink()
    assert torch.equal(content(make(tmp_path / "data", **options))[0], before)


def test_a_changed_mask_or_json_is_read_anew(tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path / "cache")}
    assert content(masks(tmp_path / "a", **options))[1][0].unique().tolist() == [0]
    Image.fromarray(np.full((20, 20), 1, np.uint8)).save(tmp_path / "a/masks/0.png")
    assert content(masks(tmp_path / "a", **options))[1][0].unique().tolist() == [1]
    assert content(painted(tmp_path / "b", **options))[1][0].unique().tolist() == [0, 1]
    path = tmp_path / "b/a.json"
    path.write_text(path.read_text().replace('"image_id": 0', '"image_id": 1'))
    assert content(painted(tmp_path / "b", **options))[1][0].unique().tolist() == [0]


def test_trials_map_one_copy(tmp_path: Path) -> None:
    """Pages of a mapped file are shared between processes; a copy in memory would not be."""
    images = masks(tmp_path, cache_dir=str(tmp_path / "cache")).load("train")
    for pixels in (images.images, images.masks):
        address = pixels.source.data_ptr()  # type: ignore[union-attr]
        ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "cache/pixels" in line]
        bounds = [[int(end, 16) for end in entry[0].split("-")] for entry in ranges]
        assert any(low <= address < high for low, high in bounds)
