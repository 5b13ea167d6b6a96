"""How messages and reports list things."""

import pytest

from cv_lab.text import listing


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a", "b", "c", "d"], "a, b and 2 more"),
        (["a, b", "c", "d"], "a, b; c and d"),
    ],
)
def test_lists_are_shortened_and_joined(items: list[str], words: str) -> None:
    assert listing(items, 2) == words
