"""Files of all kinds show what a viewer shows."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cv_lab.data.pixels import ORIENTATION, TURNS, Photo, decode, opened, read_fitting, suffixes

GREY = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)  # dark above, bright below
INVERSE = {  # how an upright image is stored under each orientation
    **TURNS,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def scene() -> Image.Image:
    """64 x 48 pixels: red, green, blue and white quarters."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    pixels[24:, 32:] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_images_are_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = scene().transpose(INVERSE[orientation]) if orientation > 1 else scene()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(
        path, exif=exif, **({"quality": 95} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {})
    )
    shown, size = read_fitting(path, (48, 64))
    assert size == (64, 48)
    assert shown.shape == (48, 64, 3)
    assert np.abs(shown[[8, 8, 40], [8, 56, 8]].astype(int) - np.diag([200] * 3)).max() < 12
    smaller, _ = read_fitting(path, (24, 40))
    assert smaller.shape == (24, 32, 3)
    assert (
        np.abs(decode(path, (48, 48), "crop", ())[[4, 4, 44], [4, 44, 4]].astype(int) - np.diag([200] * 3)).max() < 12
    )


def sixteen(path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path)


def twelve(path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 16).save(path)


def eight_in_sixteen(path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(path)


def int32(path: Path) -> None:
    Image.fromarray(GREY.astype(np.int32) * 257).save(path)


def signed(path: Path) -> None:
    Image.fromarray(GREY.astype(np.int32) * 10 - 1000).save(path)


def float_to_1(path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32) / 255).save(path)


def float_to_255(path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(path)


def grey_with_alpha(path: Path) -> None:
    Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (64, 48), 255)]).save(path)


def cmyk(path: Path) -> None:
    Image.fromarray(np.stack([GREY] * 3, 2)).convert("CMYK").save(path)


def palette(path: Path) -> None:
    Image.fromarray(GREY).convert("P").save(path)


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        *((write, suffix) for write in (sixteen, twelve, eight_in_sixteen) for suffix in ("png", "tif")),
        *((write, "tif") for write in (int32, signed, float_to_1, float_to_255, cmyk)),
        (grey_with_alpha, "png"),
        (palette, "png"),
    ],
)
def test_grey_values_of_every_depth_are_those_of_8_bits(
    tmp_path: Path, write: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path)
    shown, _ = read_fitting(path, (48, 64))
    assert np.abs(shown.astype(int) - GREY[:, :, None]).max() <= 2


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be decoded as an image: it holds values that are not finite"):
        decode(tmp_path / "a.tif", (4, 4), "crop", ())


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "tRNS"])
def test_transparency_is_laid_on_white(tmp_path: Path, kind: str) -> None:
    """Black ink on transparent ground, whose hidden pixels are black as well."""
    ink = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (8, 8, 24, 24))
    if kind == "tRNS":
        flat = Image.new("RGB", (32, 32), (1, 2, 3))
        flat.paste((0, 0, 0), (8, 8, 24, 24))
        flat.save(tmp_path / "a.png", transparency=(1, 2, 3))
    elif kind == "P":
        indices = Image.new("P", (32, 32), 0)
        indices.putpalette([0, 0, 0, 0, 0, 0])
        indices.paste(1, (8, 8, 24, 24))
        indices.save(tmp_path / "a.png", transparency=0)
    else:
        ink.convert(kind).save(tmp_path / "a.png")
    shown = decode(tmp_path / "a.png", (32, 32), "crop", ())
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[16, 16].tolist() == [0, 0, 0]


def test_of_several_pages_the_first_is_taken_and_said(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), (250 * number, 0, 0)) for number in range(3)]
    for suffix in ("gif", "tif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        with opened(path) as photo:
            assert photo.fitted((8, 8), "crop", ()).max() == 0
            assert photo.notes == ["animated or of several pages, of which the first is taken"]


def test_photographs_of_every_size_are_cropped() -> None:
    """The whole height of these is taken, by rounding with a top edge of -1e-14 for a height of 246."""
    for height in range(100, 300):
        photo = Photo(Image.new("RGB", (height + 71, height), "red"))
        assert photo.fitted((224, 224), "crop", (0, 0, 0)).shape == (224, 224, 3)


def test_a_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded .*10000 pixels\) exceeds limit"):
        decode(tmp_path / "a.png", (8, 8), "crop", ())


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_damaged_files_of_every_kind_are_refused_in_words(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2], whole[:30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be decoded as an image"):
            decode(path, (8, 8), "crop", ())


def test_suffixes_are_those_of_photographs() -> None:
    assert {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".tif", ".bmp"} <= suffixes()
    assert not {".pdf", ".eps", ".mp4", ".txt", ".h5"} & suffixes()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_is_zero_where_a_tiff_says_so(kind: type[np.unsignedinteger[Any]], tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), np.iinfo(kind).max // 5, kind)).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    place = content.index(struct.pack("<HHI", 262, 3, 1)) + 8  # PhotometricInterpretation, one short number
    content[place : place + 2] = struct.pack("<H", 0)
    (tmp_path / "a.tif").write_bytes(content)
    shown = decode(tmp_path / "a.tif", (4, 4), "crop", ())
    assert shown.min() == shown.max() == 204
