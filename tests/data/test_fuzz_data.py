"""Spoilt data sets are trained on or refused in words."""

from pathlib import Path

import pytest

from scripts.benchmarks.fuzz_data import KINDS, attempt


@pytest.mark.parametrize("number", range(42))
def test_spoilt_data_is_used_or_refused_in_words(tmp_path: Path, number: int) -> None:
    outcome, words = attempt(list(KINDS)[number % len(KINDS)], number, tmp_path / "data")
    assert outcome in ("trained", "refused"), words
