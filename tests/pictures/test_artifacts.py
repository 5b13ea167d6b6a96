"""Tables beside pictures."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cv_lab.pictures.artifacts import write_confusion_csv
from cv_lab.report.matrices import matrix


def test_classes_of_any_name_keep_their_counts(tmp_path: Path) -> None:
    """A class may be called like the column that names the rows."""
    for names in (["truth", "predicted", "$5_or_$10"], ["<b>", "中文", "a,b"], ["truth_", "truth", "x"]):
        counts = np.arange(9).reshape(3, 3)
        write_confusion_csv(counts, names, tmp_path / "predictions" / "confusion_matrix.csv")
        notes: list[str] = []
        trial: Any = SimpleNamespace(folder=tmp_path, name="a")
        found = matrix(trial, notes)
        assert found is not None, notes
        assert found.classes == names
        assert np.array_equal(found.counts, counts)
