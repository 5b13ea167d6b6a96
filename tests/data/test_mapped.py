"""A kept tensor is whole and of its key, or it is not used."""

import errno
import multiprocessing
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cv_lab.data import mapped
from cv_lab.data.mapped import Mapped, cached, find_or_compute

KEY = {"images": "abc", "size": 4}
WHOLE = torch.arange(40, dtype=torch.float32).view(10, 4)


class Source:
    """Yields `WHOLE` in pieces, and counts how often."""

    def __init__(self, tensor: Tensor = WHOLE) -> None:
        self.tensor, self.calls = tensor, 0

    def __call__(self) -> Iterator[Tensor]:
        self.calls += 1
        yield from self.tensor.split(3)


def ask(path: Path, source: Source, key: dict[str, object] = KEY) -> Mapped:
    shape = tuple(source.tensor.shape)
    return find_or_compute(path, key, shape, source.tensor.dtype, source, lambda: {"seconds": 1.5})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_it_is_computed_once_and_found_again(tmp_path: Path, dtype: torch.dtype) -> None:
    source, path = Source(WHOLE.to(dtype)), tmp_path / "deep" / "a.safetensors"
    first, second = ask(path, source), ask(path, source)
    assert source.calls == 1
    assert (first.computed, second.computed) == (True, False)
    assert torch.equal(first.tensor, WHOLE.to(dtype))
    assert torch.equal(second.tensor, WHOLE.to(dtype))
    assert second.facts == {"seconds": 1.5}
    assert second.tensor.data_ptr() % 64 == 0
    assert torch.equal(load_file(path)["data"], WHOLE.to(dtype))  # any program that knows the format can read it


@pytest.mark.parametrize("damage", ["cut", "grown", "flipped", "header", "facts", "empty", "text"])
def test_a_damaged_file_is_said_and_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path, source = tmp_path / "a.safetensors", Source()
    ask(path, source)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-7] ^= 1
    if damage == "header":
        content[9] ^= 255
    if damage == "facts":
        content = content.replace(b"1.5", b"2.5")
    foreign = {"cut": content[:-8], "grown": content + b"more", "empty": b"", "text": b"hello, this is no tensor" * 9}
    path.write_bytes(foreign.get(damage, bytes(content)))
    again = ask(path, source)
    assert again.computed
    assert source.calls == 2
    assert torch.equal(again.tensor, WHOLE)
    assert again.facts == {"seconds": 1.5}
    assert "is not used" in caplog.text
    assert not ask(path, source).computed


def test_a_file_of_another_key_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.safetensors"
    ask(path, Source())
    assert ask(path, Source(), {**KEY, "images": "other"}).computed
    assert "computed from something else" in caplog.text


def test_a_file_of_another_shape_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    ask(path, Source())
    assert ask(path, Source(WHOLE.view(4, 10))).tensor.shape == (4, 10)
    assert ask(path, Source(WHOLE.double())).tensor.dtype == torch.float64


def test_without_permission_it_stays_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    kept = ask(tmp_path / "file" / "a.safetensors", Source())
    assert kept.path is None
    assert torch.equal(kept.tensor, WHOLE)
    assert "cannot be written" in caplog.text


def test_without_space_it_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    assert torch.equal(ask(tmp_path / "a.safetensors", Source()).tensor, WHOLE)
    assert "it takes 0 MB, and 0 MB are free" in caplog.text
    assert "cannot be written" in caplog.text
    assert not list(tmp_path.glob("*.safetensors*"))


class FullDisk(Source):
    """The disk is full after the first piece that is to be written."""

    def __call__(self) -> Iterator[Tensor]:
        for number, piece in enumerate(super().__call__()):
            if number == 1 and self.calls == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield piece


def test_space_that_ends_midway_leaves_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(ask(tmp_path / "a.safetensors", FullDisk()).tensor, WHOLE)
    assert "No space left" in caplog.text
    assert not list(tmp_path.glob("*a.safetensors*"))


def _slowly(path: Path, counter: Path) -> None:
    def rows() -> Iterator[Tensor]:
        with open(counter, "a") as file:
            file.write("x")
        time.sleep(0.5)
        yield WHOLE

    found = find_or_compute(path, KEY, (10, 4), torch.float32, rows, dict)
    assert torch.equal(found.tensor, WHOLE)


def test_processes_that_need_it_at_once_compute_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "a.safetensors", tmp_path / "counter")
    processes = [context.Process(target=_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "x"


def test_the_checksum_is_computed_once_for_each_state_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, source, computed = tmp_path / "a.safetensors", Source(), []
    monkeypatch.setattr(mapped, "_checksum", lambda file, size: computed.append(size) or zlib.crc32(file.read(size)))
    ask(path, source)
    ask(path, source)
    assert not computed  # the process that wrote the file knows what it wrote
    path.touch()
    assert not ask(path, source).computed
    assert not ask(path, source).computed
    assert computed == [160]


def test_facts_may_be_longer_than_the_tensor(tmp_path: Path) -> None:
    facts = [f"photograph {number}" for number in range(5000)]
    for _ in range(2):
        found = cached(tmp_path, KEY, (10, 4), torch.float32, Source(), lambda: facts)
        assert found.facts == facts
    assert found.computed is False
    assert found.path == tmp_path / f"{mapped.name_of(KEY)}.safetensors"
