"""Text in pictures: a font that has the letters, and as much of a text as fits."""

from functools import cache, lru_cache
from typing import cast

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
Color = tuple[int, int, int]

INK = (34, 34, 34)
PALE_INK = (110, 110, 110)
GROUND = (255, 255, 255)

# Pillow's own font has hardly more than ASCII. Pillow looks these up in the folders of the system's fonts.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "wqy-microhei.ttc"),
    *("DroidSansFallbackFull.ttf", "ipag.ttf", "NanumGothic.ttf", "msyh.ttc", "YuGothR.ttc", "malgun.ttf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf"),
)


@lru_cache(1024)
def font_for(text: str, size: float) -> tuple[Font, str]:
    """Choose a font that has all letters of `text`, which are else written as escapes such as "\\u4e2d".

    Args:
        text: one line.
        size: height of the font in pixels.

    Returns:
        the font, and the text that it can show.
    """
    own = _own_font(size)
    if text.isascii():
        return own, text
    fonts = [own, *(font.font_variant(size=size) for font in _system_fonts())]
    lacking = {font: {letter for letter in set(text) if not _has(font, letter)} for font in fonts}
    font = min(fonts, key=lambda font: len(lacking[font]))
    escaped = (c.encode("ascii", "backslashreplace").decode() if c in lacking[font] else c for c in text)
    return font, "".join(escaped)


@cache
def _own_font(size: float) -> Font:
    """Pillow's own, which it would decode anew each time."""
    return cast(Font, ImageFont.load_default(size=size))


@cache
def _system_fonts() -> list[Font]:
    """Those of :data:`FONTS` that the system has."""
    found = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, 10))
        except OSError:
            continue
    return found


def _has(font: Font, letter: str) -> bool:
    """Whether it draws a letter other than what has no letter."""
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: float,
    width: float | None = None,
    color: Color = INK,
    anchor: str = "lm",
) -> float:
    """Write a line of text.

    Args:
        draw: of the picture.
        place: x and y of the anchor in pixels.
        text: the line; it ends in an ellipsis where it is wider than `width`.
        size: height of the font in pixels.
        width: pixels at most.
        color: of the text.
        anchor: which point of the text lies at `place`, as in Pillow.

    Returns:
        the width of what was written, in pixels.
    """
    font, text = font_for(text, size)
    text = text if width is None else shorten(text, font, width)
    draw.text(place, text, fill=color, font=font, anchor=anchor)
    return font.getlength(text)


def length(text: str, size: float) -> float:
    """The width of a line of text in pixels, at a font's height of `size`."""
    font, text = font_for(text, size)
    return font.getlength(text)


def shorten(text: str, font: Font, width: float) -> str:
    """The text, or as much of its beginning as fits into `width` pixels together with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1].rstrip(" _-")
    return text + "..."


def rotated(text: str, size: float, degrees: int, width: float) -> Image.Image:
    """A line of text as a mask, turned to the left by `degrees`; `width` pixels at most before that."""
    font, text = font_for(text, size)
    text = shorten(text, font, width)
    mask = Image.new("L", (round(font.getlength(text)) + 2, round(1.4 * size)))
    ImageDraw.Draw(mask).text((1, mask.height // 2), text, fill=255, font=font, anchor="lm")
    return mask.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
