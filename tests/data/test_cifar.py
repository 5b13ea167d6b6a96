"""Reading, checking and downloading CIFAR; the download runs against a server on this machine."""

import hashlib
import io
import logging
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from cv_lab.data.cifar import Cifar10, Cifar100
from tests.conftest import need


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server on loopback, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()


@pytest.fixture
def published(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 of 50 + 10 random images on the server; torchvision is told its address and checksums."""
    address, folder = server
    random = np.random.default_rng(0)
    files = {}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        pixels = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": list(range(10))})
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, md5[name]] for name in files if "data" in name])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return archive


def test_an_absent_data_set_is_downloaded_and_read(published: Path, tmp_path: Path) -> None:
    data = Cifar10(str(tmp_path / "data"), batch_size=4, val_fraction=0.2)
    data.prepare_data()
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (40, 10, 10)
    assert data.classes == tuple("abcdefghij")
    published.unlink()
    Cifar10(str(tmp_path / "data")).prepare_data()  # is there: asks the server for nothing


def test_a_truncated_download_is_refused(published: Path, tmp_path: Path) -> None:
    published.write_bytes(published.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match="corrupted"):
        Cifar10(str(tmp_path / "data")).prepare_data()


def test_a_changed_file_is_refused_unless_told_otherwise(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Cifar10(str(tmp_path / "data")).prepare_data()
    changed = tmp_path / "data/cifar-10-batches-py/test_batch"
    content = pickle.loads(changed.read_bytes())
    content["data"][0, 0] ^= 1
    changed.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"test_batch.*data\.verify_checksum=false"):
        Cifar10(str(tmp_path / "data")).prepare_data()
    with caplog.at_level(logging.WARNING):
        Cifar10(str(tmp_path / "data"), verify_checksum=False).prepare_data()
    assert "without checking" in caplog.text


def test_a_damaged_file_is_named(published: Path, tmp_path: Path) -> None:
    data = Cifar10(str(tmp_path / "data"), verify_checksum=False)
    data.prepare_data()
    damaged = tmp_path / "data/cifar-10-batches-py/data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged"):
        data.setup()


def test_absent_and_not_to_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.download=true"):
        Cifar100(str(tmp_path), download=False).prepare_data()


def test_the_real_cifar100() -> None:
    data = Cifar100(str(need("cifar-100-python")), verify_checksum=False, val_fraction=0.1)
    data.prepare_data()
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (45_000, 5_000, 10_000)
    assert data.val.labels.bincount().tolist() == [50] * 100
    pixels = data.train.images.float() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(data.mean, abs=0.002)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(data.std, abs=0.002)
