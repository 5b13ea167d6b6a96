"""The reference of config keys is complete and up to date."""

import subprocess
import sys

from scripts import write_reference
from tests.conftest import ROOT


def test_every_key_has_a_comment() -> None:
    silent = [
        f"conf/{option.group}/{option.name}.yaml: {key.path}"
        for option in write_reference.options().values()
        for key in option.keys
        if not write_reference.meaning(option, key)
    ]
    assert not silent, "say behind # what it means:\n" + "\n".join(silent)


def test_the_page_is_up_to_date() -> None:
    # In a process of its own: which annotations can be read depends on what has been imported.
    code = "import sys; from scripts import write_reference as w; sys.stdout.buffer.write(w.page().encode())"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    page = write_reference.PAGE.read_text(encoding="utf-8")
    assert page == answer.stdout.decode(), "write it anew: python scripts/write_reference.py"


def test_types_come_from_the_code_and_meanings_from_the_comments() -> None:
    page = write_reference.page()
    for row in (
        "| `lr` | number | `1e-2` | peak learning rate, whatever the optimizer and the schedule |",
        "| `trial_timeout` | number or null | `null` | seconds after which a trial of a study is given up |",
        "| `data.seed` | integer | `${seed}` | give seed instead |",
        "| `model.widths` | list of integers | `[16, 32, 64]` | channels of the three groups |",
        # The comment stands in the option that this one extends.
        "| `data.image_size` | integer | `64` | height and width in pixels |",
        # The key belongs to another group than the file.
        "| `trainer.gradient_clip_val` | number | `5.0` | largest norm of the gradient; null does not clip |",
    ):
        assert row in page
