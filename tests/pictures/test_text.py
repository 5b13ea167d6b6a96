"""Letters that a font lacks are found in another, or else written as escapes."""

from collections.abc import Iterator

import pytest
from PIL import ImageFont

from cv_lab.pictures import text

FONT = ImageFont.load_default(size=12)


@pytest.fixture
def _no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    text.font_for.cache_clear()
    monkeypatch.setattr(text, "_system_fonts", list)
    yield
    text.font_for.cache_clear()


@pytest.mark.usefixtures("_no_system_fonts")
def test_without_a_font_letters_are_escaped_visibly() -> None:
    assert text.font_for("plain", 12)[1] == "plain"
    assert text.font_for("\u4e2d x", 12)[1] == "\\u4e2d x"


def test_a_font_of_the_system_shows_what_pillows_lacks() -> None:
    try:
        ImageFont.truetype("DejaVuSans.ttf", 12)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    font, shown = text.font_for("K\u00e4se \u0434\u043e\u043c", 12)
    assert shown == "K\u00e4se \u0434\u043e\u043c"
    missing = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != missing for letter in shown if letter != " ")


def test_shortened_text_fits_and_ends_in_dots() -> None:
    assert text.shorten("short", FONT, 1000) == "short"
    shown = text.shorten("a very long name indeed", FONT, 60)
    assert shown.endswith("...")
    assert FONT.getlength(shown) <= 60
