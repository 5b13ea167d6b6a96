"""Pictures from numpy arrays: tiles, grids, confusion matrices, masks and bars per class.

Images are uint8, (H, W, 3) in RGB or (H, W) in grey. Photographs and masks are drawn with Pillow;
what has axes is drawn with matplotlib, which is imported only there because it takes most of a
second, and by its `Figure` rather than by `pyplot`, which keeps global state and wants a display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cv_lab.report.colours import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

INK = (34, 34, 34)
PALE_INK = (110, 110, 110)
GROUND = (255, 255, 255)
PAPER = "#f0f0f0"  # behind what has no pixels or no samples
RIGHT = (0, 140, 90)
WRONG = (205, 45, 40)


def classification_tile(image: Pixels, truth: str, predicted: str, confidence: float, size: int = 128) -> Image.Image:
    """An image with its predicted class; a wrong one also has the true class.

    The border is green when right and red when wrong, and a check mark or a cross says the same
    without colour.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        truth: name of the true class.
        predicted: name of the predicted class.
        confidence: of the prediction, in 0..1.
        size: longer side of the shown image in pixels. All tiles of one `size` are equally large.
    """
    right = truth == predicted
    color = RIGHT if right else WRONG
    border = max(2, size // 32)
    font = _font(max(10, size / 10))
    line = round(font.size * 1.35)
    width = size + 2 * border
    tile = Image.new("RGB", (width, width + 2 * line + border), GROUND)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, 0, width - 1, width - 1), fill=PAPER, outline=color, width=border)
    photo = _fit(Image.fromarray(image).convert("RGB"), size)
    tile.paste(photo, ((width - photo.width) // 2, (width - photo.height) // 2))

    y = width + border + line // 2
    mark = round(font.size)
    tile.paste(color, (0, y - mark // 2), _mark(right, mark))
    percent = f"{100 * confidence:.0f} %"
    draw.text((width - 1, y), percent, fill=INK, font=font, anchor="rm")
    left = mark + round(font.size / 3)
    room = width - left - font.getlength(percent + "  ")
    draw.text((left, y), _shorten(predicted, font, room), fill=INK, font=font, anchor="lm")
    if not right:
        y += line
        draw.text((left, y), "is ", fill=PALE_INK, font=font, anchor="lm")
        left += round(font.getlength("is "))
        name = _shorten(truth, font, width - left)
        draw.text((left, y), name, fill=INK, font=font, anchor="lm")
    return tile


def _font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, `size` pixels high."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))


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


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or as much of it as fits in `width` pixels together with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip(" _-")
    return text + "…"


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


def confusion_matrix(matrix: NDArray[np.integer], classes: Sequence[str], title: str | None = None) -> Image.Image:
    """Draw counts as shares of the true class.

    Up to 20 classes the cells are labelled in per cent; up to 40 the axes carry the classes' names,
    beyond that their indices. The row of a class without samples is grey. Colours go by the square
    root of the share: among many classes a mistake is a few per cent, which nobody sees on an even
    scale.

    Args:
        matrix: counts, int (K, K); rows are the truth, columns the prediction.
        classes: K names.
        title: above the matrix.
    """
    k = len(classes)
    if k == 0 or matrix.shape != (k, k):
        raise ValueError(f"confusion matrix of shape {matrix.shape} does not fit {k} classes")
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    samples = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, samples, where=samples > 0, out=np.full((k, k), np.nan))
    side = float(np.clip(0.42 * k, 2.6, 8))
    font = 9 if k <= 20 else 7
    figure = Figure(figsize=(side + 1.2, side), dpi=150)
    axes = figure.add_subplot()
    axes.set_facecolor(PAPER)  # shows where shares are NaN
    shown = axes.imshow(shares, "Blues", PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if title:
        axes.set_title(title, fontsize=11, pad=10)
    if k <= 40:
        names = [name if len(name) <= 24 else name[:23] + "…" for name in classes]
        upright = k <= 3
        axes.set_xticks(
            range(k),
            names,
            fontsize=font,
            rotation=0 if upright else 45,
            ha="center" if upright else "right",
            rotation_mode="anchor",
        )
        axes.set_yticks(range(k), names, fontsize=font)
    axes.tick_params(length=2, color="0.6")
    axes.spines[:].set_visible(False)
    if k <= 20:
        for row, column in np.argwhere(matrix > 0):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{100 * share:.0f}" if share >= 0.005 else "<1",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 0.45 else "0.15",
            )
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    bar = figure.colorbar(shown, ax=axes, fraction=0.05, aspect=30, pad=0.03, ticks=ticks)
    bar.ax.set_yticklabels([f"{100 * tick:.0f} %" for tick in ticks], fontsize=8)
    bar.ax.tick_params(length=2, color="0.6")
    bar.set_label("share of the true class", fontsize=9)
    bar.outline.set_visible(False)
    return _render(figure)


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
    font = _font(max(10, size / 11))
    line, gap = round(font.size * 1.35), max(2, size // 40)
    width, height = photos[0].size
    row = Image.new("RGB", (4 * width + 3 * gap, height + line), GROUND)
    ImageDraw.Draw(row).text((0, line // 2), _shorten(title, font, row.width), fill=INK, font=font, anchor="lm")
    for column, photo in enumerate(photos):
        row.paste(photo, (column * (width + gap), line))
    return row


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
    draw, font = ImageDraw.Draw(picture), _font(11)
    for place, text, color in zip(places, labels, colors, strict=True):
        if place is not None:
            box = draw.textbbox(place, text, font=font, anchor="lt")
            x = max(0, min(place[0], picture.width - int(box[2] - box[0]) - 3))
            draw.rectangle((x, place[1], x + box[2] - box[0] + 2, box[3] + 1), fill=tuple(color))
            bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
            draw.text((x + 1, place[1]), text, fill=INK if bright else GROUND, font=font, anchor="lt")
    return picture


def beside(pictures: Sequence[Image.Image], title: str, gap: int = 6) -> Image.Image:
    """Pictures of one height side by side, below a title."""
    width = sum(picture.width + gap for picture in pictures) - gap
    font = _font(14)
    line = round(font.size * 1.35)
    row = Image.new("RGB", (width, pictures[0].height + line), GROUND)
    ImageDraw.Draw(row).text((0, line // 2), _shorten(title, font, width), fill=INK, font=font, anchor="lm")
    x = 0
    for picture in pictures:
        row.paste(picture, (x, line))
        x += picture.width + gap
    return row


def precision_recall(precision: NDArray[np.floating], names: Sequence[str], title: str) -> Image.Image:
    """Curves of precision by recall, the mean of several in black; up to ten classes are told apart by colour.

    Args:
        precision: (R, K), in 0..1, at recalls evenly from 0 to 1; NaN for a class without samples.
        names: K names.
        title: above the curves.
    """
    from matplotlib.figure import Figure

    recall = np.linspace(0, 1, len(precision))
    present = np.flatnonzero(np.isfinite(precision).all(0))
    figure = Figure(figsize=(5.6, 4.2), dpi=150)
    axes = figure.add_subplot()
    few = len(present) <= 10
    for color, k in zip(palette(len(present)) / 255, present.tolist(), strict=True):
        style = {"color": color, "linewidth": 1.4, "label": names[k]} if few else {"color": "0.8", "linewidth": 0.8}
        axes.plot(recall, precision[:, k], **style)
    if len(present) > 1:
        mean = precision[:, present].mean(1)
        axes.plot(recall, mean, color="black", linewidth=2, label=f"mean of {len(present)} classes")
    if len(present):
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return _render(figure)


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
        raise ValueError(f"{len(classes)} classes need as many colors, given are {len(colors)}")
    font = _font(14)
    square, line, space = 14, 24, 18
    picture = Image.new("RGB", (width, line * max(1, len(classes))), GROUND)
    draw = ImageDraw.Draw(picture)
    x = right = 0
    y = line // 2
    for name, color in zip(classes, colors, strict=False):
        name = _shorten(name, font, width - square - 6)
        taken = square + 6 + round(font.getlength(name))
        if x and x + taken > width:
            x, y = 0, y + line
        draw.rounded_rectangle((x, y - square // 2, x + square - 1, y + square // 2 - 1), 3, fill=tuple(color.tolist()))
        draw.text((x + square + 6, y), name, fill=INK, font=font, anchor="lm")
        right = max(right, x + taken)
        x += taken + space
    return picture.crop((0, 0, right + 1, y + line // 2))


def bar_chart(
    values: NDArray[np.floating] | Sequence[float], names: Sequence[str], title: str, unit: str
) -> Image.Image:
    """One horizontal bar a class, with its value at its end.

    Args:
        values: K numbers, in `unit`; NaN, of a class that does not occur, is called absent.
        names: K names, drawn from top to bottom.
        title: above the bars.
        unit: label of the axis; "%" fixes it to 0..100.
    """
    heights = np.asarray(values, dtype=float)
    if heights.shape != (len(names),) or not names:
        raise ValueError(f"{len(names)} names need as many values, given are {heights.shape}")
    from matplotlib.figure import Figure

    present = np.isfinite(heights)
    decimals = 3 if np.abs(heights[present]).max(initial=0) <= 1 else 1
    figure = Figure(figsize=(6.4, 0.8 + 0.24 * len(names)), dpi=150)
    axes = figure.add_subplot()
    axes.barh(range(len(names)), np.where(present, heights, 0), height=0.7, color="#0072b2")
    for row, (value, exists) in enumerate(zip(heights, present, strict=True)):
        axes.annotate(
            f"{value:.{decimals}f}" if exists else "absent",
            (value if exists else 0, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="0.15" if exists else "0.5",
            style="normal" if exists else "italic",
        )
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    if unit == "%":
        axes.set_xlim(0, 100)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _render(figure)


def _render(figure: Figure) -> Image.Image:
    """A figure's picture, cut to what is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)
    return Image.open(buffer).convert("RGB")
