"""Pictures from numpy arrays: tiles, grids, masks and instances over photographs, legends.

Images are uint8, (H, W, 3) in RGB or (H, W) in grey. They are drawn with Pillow and NumPy, without torch. Of
torchvision's functions, `draw_segmentation_masks` takes one boolean mask per class, and 138 ms where :func:`overlay`
takes 25 for 32 classes of a 360 x 480 image (483 against 21 for 150 classes); `make_grid` wants tiles of one size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cv_lab.colours import palette
from cv_lab.pictures.text import GROUND, INK, PALE_INK, length, write

Pixels = NDArray[np.uint8]

PAPER = (240, 240, 240)  # behind what has no pixels
RIGHT = (0, 140, 90)
WRONG = (205, 45, 40)


def classification_tile(
    image: Pixels, truth: str, predicted: str, confidence: float, size: int = 128, file: str = ""
) -> Image.Image:
    """An image with its predicted class; a wrong one also has the true class.

    The border is green when right and red when wrong, and a check mark or a cross says the same
    without colour.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        truth: name of the true class.
        predicted: name of the predicted class.
        confidence: of the prediction, in 0..1.
        size: longer side of the shown image in pixels. All tiles of one `size` are equally large.
        file: name to write below, if any.
    """
    right = truth == predicted
    color = RIGHT if right else WRONG
    border = max(2, size // 32)
    height = max(10, size / 10)
    line, mark = round(height * 1.35), round(height)
    width = size + 2 * border
    tile = Image.new("RGB", (width, width + (3 if file else 2) * line + border), GROUND)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, 0, width - 1, width - 1), fill=PAPER, outline=color, width=border)
    photo = _fit(Image.fromarray(image).convert("RGB"), size)
    tile.paste(photo, ((width - photo.width) // 2, (width - photo.height) // 2))

    y = width + border + line // 2
    tile.paste(color, (0, y - mark // 2), _mark(right, mark))
    percent = f"{100 * confidence:.0f} %"
    taken = write(draw, (width - 1, y), percent, height, anchor="rm")
    left = mark + round(height / 3)
    write(draw, (left, y), predicted, height, width - left - taken - height / 2)
    if not right:
        left += round(write(draw, (left, y + line), "is ", height, color=PALE_INK))
        write(draw, (left, y + line), truth, height, width - left)
    if file:
        write(draw, (0, y + 2 * line), file, height, width, color=PALE_INK)
    return tile


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Resize to a longer side of `size`: tiny images by whole pixels, others smoothly."""
    scale = size / max(image.size)
    small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.NEAREST if scale >= 8 else Image.Resampling.BICUBIC
    return image.resize(small, method)


def _mark(right: bool, size: int) -> Image.Image:
    """A check mark or a cross as a mask of (size, size) pixels; the font has neither."""
    scale = 8  # Pillow's lines have steps; drawn large and reduced they become smooth
    big = size * scale
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    strokes = (
        [[(0.12, 0.55), (0.38, 0.82), (0.88, 0.2)]]
        if right
        else [[(0.18, 0.18), (0.82, 0.82)], [(0.82, 0.18), (0.18, 0.82)]]
    )
    for stroke in strokes:
        points = [(x * big, y * big) for x, y in stroke]
        draw.line(points, fill=255, width=big // 7, joint="curve")
    return mask.resize((size, size), Image.Resampling.LANCZOS)


def grid(tiles: Sequence[Image.Image], columns: int = 8, gap: int = 12) -> Image.Image:
    """Tiles in rows on a white ground, `gap` pixels apart; the last row may be incomplete."""
    if not tiles or columns < 1:
        raise ValueError(f"grid of {len(tiles)} tiles in {columns} columns: give at least one each")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    width = max(tile.width for tile in tiles) + gap
    height = max(tile.height for tile in tiles) + gap
    picture = Image.new("RGB", (columns * width + gap, rows * height + gap), GROUND)
    for i, tile in enumerate(tiles):
        picture.paste(tile, (gap + i % columns * width, gap + i // columns * height))
    return picture


def overlay(image: Pixels, mask: NDArray[np.integer], colors: Pixels, alpha: float = 0.5, ignore: int = 255) -> Pixels:
    """Lay the colours of a mask's classes over an image.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        mask: class of each pixel, int (H, W).
        colors: uint8 (K, 3), as from :func:`palette`.
        alpha: opacity of the colours, 0..1.
        ignore: label of pixels that belong to no class; they show the bare image.

    Returns:
        uint8 (H, W, 3).
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask of shape {mask.shape} does not fit an image of {image.shape[:2]}")
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    known = mask != ignore
    labels = mask[known]
    if labels.size and not 0 <= labels.min() <= labels.max() < len(colors):
        raise ValueError(f"mask has labels {labels.min()} to {labels.max()}, colors has {len(colors)} classes")
    result = rgb.copy()
    mixed = (1 - alpha) * rgb[known] + alpha * colors[labels].astype(float)
    result[known] = mixed.round().astype(np.uint8)
    return result


def mask_palette(classes: Sequence[str], background: int | None = None) -> Pixels:
    """:func:`palette` for the classes of masks, with a dark grey for the background, if there is one."""
    if background is None:
        return palette(len(classes))
    return np.insert(palette(len(classes) - 1), background, (70, 70, 70), axis=0)


def segmentation_row(
    image: Pixels,
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    colors: Pixels,
    title: str,
    size: int = 160,
    ignore: int = 255,
) -> Image.Image:
    """An image beside its true mask, its predicted mask, and its wrong pixels in red on grey.

    Args:
        image: uint8 (H, W, 3).
        truth: class of each pixel, int (H, W); pixels labelled `ignore` show the bare image and are never wrong.
        predicted: likewise.
        colors: uint8 (K, 3), as from :func:`mask_palette`.
        title: above the row.
        size: longer side of each of the four pictures in pixels.
        ignore: label of pixels that belong to no class.
    """
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    wrong = np.where((truth != predicted) & (truth != ignore), 0, 1)
    panels = [
        image,
        overlay(image, truth, colors, 0.65, ignore),
        overlay(image, predicted, colors, 0.65, ignore),
        overlay(grey, wrong, np.array([WRONG], np.uint8), 0.7, ignore=1),
    ]
    photos = [_fit(Image.fromarray(panel), size) for panel in panels]
    return beside(photos, title, gap=max(2, size // 40))


def instances(
    image: Pixels,
    masks: Sequence[NDArray[np.integer]],
    labels: Sequence[str],
    colors: Sequence[Sequence[int]],
    size: int = 240,
) -> Image.Image:
    """An image with a tint, an outline and a label for each of its objects.

    Args:
        image: uint8 (H, W, 3).
        masks: M arrays of 0 and 1, (h, w) each, of the image's proportions.
        labels: M texts.
        colors: M colours.
        size: longer side of the picture in pixels.
    """
    photo = np.asarray(_fit(Image.fromarray(image), size)).astype(float)
    shown = (photo.shape[1], photo.shape[0])
    places = []
    for mask, color in zip(masks, colors, strict=True):
        inside = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(shown, Image.Resampling.NEAREST)).astype(bool)
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        photo[inside] = 0.6 * photo[inside] + 0.4 * np.array(color)
        photo[inside & ~core] = color
        rows, columns = np.nonzero(inside)
        places.append((int(columns.min()), int(rows.min())) if len(rows) else None)
    picture = Image.fromarray(photo.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for place, text, color in zip(places, labels, colors, strict=True):
        if place is not None:
            width = round(length(text, 11))
            x, y = max(0, min(place[0], picture.width - width - 3)), place[1]
            draw.rectangle((x, y, x + width + 2, y + 12), fill=tuple(color))
            bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
            write(draw, (x + 1, y + 6), text, 11, color=INK if bright else GROUND)
    return picture


def beside(pictures: Sequence[Image.Image], title: str, gap: int = 6) -> Image.Image:
    """Pictures of one height side by side, below a title."""
    width = sum(picture.width + gap for picture in pictures) - gap
    line = 19
    row = Image.new("RGB", (width, pictures[0].height + line), GROUND)
    write(ImageDraw.Draw(row), (0, line // 2), title, 14, width)
    x = 0
    for picture in pictures:
        row.paste(picture, (x, line))
        x += picture.width + gap
    return row


def stack(pictures: Sequence[Image.Image], gap: int = 12) -> Image.Image:
    """Pictures below each other on a white ground, flush left."""
    width, height = max(p.width for p in pictures), sum(p.height + gap for p in pictures) + gap
    column = Image.new("RGB", (width + 2 * gap, height), GROUND)
    y = gap
    for picture in pictures:
        column.paste(picture, (gap, y))
        y += picture.height + gap
    return column


def legend(classes: Sequence[str], colors: Pixels, width: int = 800) -> Image.Image:
    """Coloured squares with the classes' names, side by side, wrapped to `width` pixels."""
    if len(colors) < len(classes):
        raise ValueError(f"{len(classes)} classes need as many colors, but got {len(colors)}")
    square, line, space = 14, 24, 18
    picture = Image.new("RGB", (width, line * max(1, len(classes))), GROUND)
    draw = ImageDraw.Draw(picture)
    x = right = 0
    y = line // 2
    for name, color in zip(classes, colors, strict=False):
        taken = square + 6 + round(min(length(name, 14), width - square - 6))
        if x and x + taken > width:
            x, y = 0, y + line
        draw.rounded_rectangle((x, y - square // 2, x + square - 1, y + square // 2 - 1), 3, fill=tuple(color.tolist()))
        write(draw, (x + square + 6, y), name, 14, width - square - 6)
        right = max(right, x + taken)
        x += taken + space
    return picture.crop((0, 0, right + 1, y + line // 2))
