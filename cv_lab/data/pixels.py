"""Decode image files to 8-bit RGB as a viewer shows them: upright, scaled to 8 bits, opaque, the first frame."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Pixels = NDArray[np.uint8]
Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)
Box = tuple[float, float, float, float]  # left, top, right and bottom, in pixels
READER = 4  # version of the pixels that this module makes of a file: increase it with every change of them
ORIENTATION = 0x0112  # the tag of EXIF
TURNS = {  # what makes an image of each orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LARGEST_OF_INTEGERS = (255, 4095, 65535)  # 8, 12 and 16 bits, in which cameras and microscopes store grey values
LARGEST_OF_FLOATS = (1, 255, 65535)
WHITE = (255, 255, 255, 255)  # of paper: drawings, logos and signatures on transparent ground are mostly dark
NOT_PHOTOGRAPHS = {"EPS", "WMF", "MPEG", "GRIB", "BUFR", "HDF5"}  # formats of which Pillow alone reads no pixels

# Scans of 90 to 179 million pixels are ordinary. Larger ones raise `Image.DecompressionBombError`.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of files that can be decoded, in lower case and with their dots."""
    Image.init()
    formats = Image.OPEN.keys() - NOT_PHOTOGRAPHS
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


class Photo:
    """An open image file.

    Attributes:
        size: upright width and height in pixels.
        stored_size: width and height as the file stores the pixels.
        orientation: of EXIF, 1 for upright; what it says is done to the pixels.
        notes: what was done to the pixels that their owner should know of.
    """

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.stored_size = image.size
        self.orientation = _orientation(image)
        self.size = image.size[::-1] if self.orientation >= 5 else image.size
        self.notes: list[str] = []
        # Phones write MPO: the photograph, then previews of it.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            self.notes.append("animated or of several pages, of which the first is taken")

    def fitted(self, size: tuple[int, int], fit: Fit, ground: Sequence[int]) -> Pixels:
        """Return the image as uint8 of `size`, height and width, and three channels.

        Args:
            size: height and width in pixels.
            fit: "crop" scales the largest central part of the proportions of `size` to it; "pad" scales the whole image
                in proportion and centres it on `ground`; "stretch" scales the whole image without regard to its
                proportions.
            ground: red, green and blue, 0 to 255.
        """
        if fit == "pad":
            whole = self.fitting(size)
            top, left = ((side - own) // 2 for side, own in zip(size, whole.shape[:2], strict=True))
            padded = np.empty((*size, 3), np.uint8)
            padded[:] = ground
            padded[top : top + whole.shape[0], left : left + whole.shape[1]] = whole
            return padded
        width, height = self.size
        if fit == "stretch":
            return self.part((0, 0, width, height), size)
        scale = min(height / size[0], width / size[1])
        left, top = (width - scale * size[1]) / 2, (height - scale * size[0]) / 2
        return self.part((left, top, left + scale * size[1], top + scale * size[0]), size)

    def part(self, box: Box, size: tuple[int, int]) -> Pixels:
        """Return the part of the upright image in `box`, scaled to `size`, height and width; uint8 (H, W, 3)."""
        wide, high = (self.size[0] / (box[2] - box[0]), self.size[1] / (box[3] - box[1]))
        wanted = (max(1, round(size[1] * wide)), max(1, round(size[0] * high)))
        whole = upright(self._rgb(wanted[::-1] if self.orientation >= 5 else wanted), self.orientation)
        x, y = whole.width / self.size[0], whole.height / self.size[1]
        # By rounding, a box of the whole width or height may end a little outside of the image.
        place = (
            *(max(0.0, x * box[0]), max(0.0, y * box[1])),
            *(min(whole.width, x * box[2]), min(whole.height, y * box[3])),
        )
        return np.asarray(whole.resize(size[::-1], Image.Resampling.BILINEAR, box=place))

    def fitting(self, size: tuple[int, int]) -> Pixels:
        """Return the image scaled in proportion to fit into `size`, height and width; uint8 (h, w, 3)."""
        width, height = self.size
        scale = min(size[0] / height, size[1] / width)
        fitting = (max(1, round(width * scale)), max(1, round(height * scale)))
        stored = fitting[::-1] if self.orientation >= 5 else fitting
        return self._upright(self._rgb(stored).resize(stored, Image.Resampling.BILINEAR))

    def _rgb(self, wanted: tuple[int, int]) -> Image.Image:
        """Decode to 8-bit RGB, as stored and at least as large as `wanted`."""
        self.image.draft("RGB", wanted)  # a JPEG is decoded at half its size or less if that suffices
        if self.image.mode == "RGB" and not self.image.has_transparency_data:
            return self.image
        if self.image.mode in ("I", "F") or self.image.mode.startswith("I;16"):
            grey, top = _in_8_bits(self.image)
            if top != 255:
                self.notes.append(f"grey values up to {top:g}, scaled to 255")
            return Image.fromarray(grey).convert("RGB")
        if self.image.has_transparency_data:
            drawn = self.image.convert("RGBA")
            if drawn.getchannel("A").getextrema() != (255, 255):
                self.notes.append("transparent, laid on white")
                ground = Image.new("RGBA", drawn.size, WHITE)
                ground.alpha_composite(drawn)
                return ground.convert("RGB")
        return self.image.convert("RGB")

    def _upright(self, image: Image.Image) -> Pixels:
        return np.asarray(upright(image, self.orientation))


@contextlib.contextmanager
def opened(path: Path, content: BinaryIO | None = None) -> Iterator[Photo]:
    """Open an image file.

    Args:
        path: of the file.
        content: of the file, where that is at hand.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded, here or in the block that uses it.
    """
    if content is None and not os.path.isfile(
        path
    ):  # false for names that no file can have, which pathlib raises an error for
        raise FileNotFoundError(f"there is no image {path}")
    try:
        with Image.open(content or path) as image:
            yield Photo(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} cannot be decoded as an image: its format is not known") from error
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        raise ValueError(f"{path} cannot be decoded as an image: {error or type(error).__name__}") from error


def decode(path: Path, size: tuple[int, int], fit: Fit, ground: Sequence[int]) -> Pixels:
    """Return an image file as uint8 (H, W, 3); see :meth:`Photo.fitted`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, or a damaged one.
    """
    with opened(path) as photo:
        return photo.fitted(size, fit, ground)


def read_fitting(path: Path, size: tuple[int, int], fit: Fit = "pad") -> tuple[Pixels, tuple[int, int]]:
    """Return an image scaled to fit into `size`, height and width, and its own width and height.

    "pad" keeps its proportions, "stretch" fills `size`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, or a damaged one.
    """
    with opened(path) as photo:
        pixels = photo.fitting(size) if fit == "pad" else photo.fitted(size, fit, ())
        return pixels, photo.size


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return `image`, stored with EXIF's `orientation`, as it should be seen."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # of damaged EXIF, of which viewers say nothing either
        return 1
    return found if found in TURNS else 1


def _in_8_bits(image: Image.Image) -> tuple[Pixels, float]:
    """Scale grey values of more than 8 bits, as uint8 (H, W); and the value that became 255.

    The file's own number of bits counts where a TIFF says it. Else the range is the smallest of 8, 12 and 16 bits (for
    floats: 0 to 1, 8 or 16 bits) that holds all values, since files of 16 bits often hold those of a 12-bit sensor. An
    image with other values, negative ones say, is scaled from its own least to its largest.
    """
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    levels: tuple[int, ...] = LARGEST_OF_FLOATS if image.mode == "F" else LARGEST_OF_INTEGERS
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        bits = int(image.tag_v2.get(258, (16,))[0])  # type: ignore[attr-defined]  # BitsPerSample
        levels = (2**bits - 1,) if bits < 16 else levels
    top = next((float(level) for level in levels if high <= level), high)
    bottom = 0.0
    if low < 0 or high > levels[-1]:
        bottom, top = low, high if high > low else low + 1
    scaled = (values.astype(np.float32) - bottom) * (255 / (top - bottom))
    if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # type: ignore[attr-defined]  # WhiteIsZero
        scaled = 255 - scaled  # as Pillow does with 8 bits
    return np.round(scaled).clip(0, 255).astype(np.uint8), top
