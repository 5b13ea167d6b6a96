"""Files that are either whole or not there: written to a temporary name beside their own, then renamed."""

import csv
import io
import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

WRITTEN: set[Path] = set()  # by this process; a trial removes no other files from its folder
# By folder, what is entered while a file in it gets its name: it raises if this process may no longer write there.
FENCES: dict[Path, Callable[[], AbstractContextManager[Any]]] = {}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; move it to `path` when the block ends well, else remove it.

    The content is on the disk before the file has its name, so that a crash of the system leaves no empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes on two hosts may have the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        folder = next((parent for parent in path.absolute().parents if parent in FENCES), None)
        with nullcontext() if folder is None else FENCES[folder]():
            os.replace(temporary, path)
        WRITTEN.add(path.absolute())
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. Not-a-number becomes null, since JSON knows no NaN."""
    write_text(path, json.dumps(_without_nan(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write `rows` as CSV; the header holds all keys in order of appearance, a missing value is an empty cell."""
    rows = list(rows)
    header = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_yaml(path: Path, value: Any) -> None:
    """Write `value`, plain or an OmegaConf container, as YAML."""
    write_text(path, OmegaConf.to_yaml(value))


def check_zip(path: Path) -> None:
    """Compare the content of a zip file, as torch saves checkpoints in, with its checksums; other files pass.

    Raises:
        ValueError: if bits of it have changed.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
            if damaged is not None:
                raise ValueError(f"{path} is damaged: {damaged} in it does not match its checksum")
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
