"""Labels from a table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cv_lab.data.label_sets import rarest_labels
from cv_lab.data.labels_csv import LabelsCsv, read_labels


def table(folder: Path, text: str, images: int = 6, encoding: str = "utf-8") -> Path:
    """A table with images 0.png, 1.png, ... beside it, each of one grey."""
    for number in range(images):
        Image.new("RGB", (12, 10), (40 * number,) * 3).save(folder / f"{number}.png")
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


def read(path: Path, **options: Any) -> Any:
    return read_labels(path, path.parent, **options)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("file,labels\n0.png,cat;dog\n1.png,dog\n2.png,\n", {}),
        ("file,labels\n0.png,cat|dog\n1.png, dog \n2.png,\n", {}),
        ("Filename;Label\n0.png;dog|cat\n1.png;dog\n2.png;\n", {}),
        ("path\ttags\n0.png\tcat;dog\n1.png\tdog\n2.png\t\n", {}),
        ("id,image,what\n7,0.png,cat dog\n8,1.png,dog\n9,2.png,\n", {"labels": "what", "separator": " "}),
        ("file,cat,dog\n0.png,1,1\n1.png,0,1\n2.png,0,0\n", {}),
        ("cat,n,file,dog\n1.0,5,0.png,1\n0,5,1.png,1\n0,5,2.png,0\n", {"labels": ["cat", "dog"]}),
        ("image_id,labels\n0,cat;dog\n1,dog\n2,\n", {}),
        ("file,labels\n.\\0.png,cat;dog\n1.png,dog\n2.png,\n", {}),
        ("\ufefffile,labels\r\n0.png,cat;dog\r\n1.png,dog;dog\r\n2.png,\r\n\r\n", {}),
    ],
)
def test_forms_of_tables(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    found = read(table(tmp_path, text), **options)
    assert found.classes == ("cat", "dog")
    assert [set(labels) for labels in found.labels] == [{"cat", "dog"}, {"dog"}, set()]
    assert [file.name for file in found.files] == ["0.png", "1.png", "2.png"]
    assert found.splits is None


def test_numbers_are_ordered_by_size(tmp_path: Path) -> None:
    assert read(table(tmp_path, "file,label\n0.png,10\n1.png,9\n")).classes == ("9", "10")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,labels\n8.png,cat\n9.png,dog\n", "none of the 2 files .*9.png"),
        ("file,labels\n0.png,cat\n0.png,dog\n", "several rows for .*0.png"),
        ("file,labels\n0.png,cat,dog\n", "2 columns, but not in its rows 1"),
        ("file,labels,labels\n0.png,cat,dog\n", "several columns called labels"),
        ("picture,labels\n0.png,cat\n", "no column of files"),
        ("file\n0.png\n", "no column of labels"),
        ("file,cat,age\n0.png,1,37\n", "column age .* holds '37'"),
        ("file,labels,split\n0.png,cat,train\n1.png,cat,later\n", "splits 'later'"),
        ("file,labels\n0.png,\n", "no label in any row"),
        ("file,labels\n", "no rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read(table(tmp_path, text))


def test_columns_that_do_not_exist(tmp_path: Path) -> None:
    path = table(tmp_path, "file,labels\n0.png,cat\n")
    for options in ({"labels": "label"}, {"labels": ["cat"]}, {"file_column": "x"}, {"split_column": "fold"}):
        with pytest.raises(ValueError, match=r"is not a column of .*, which has file and labels"):
            read(path, **options)


SPLIT = "file,labels,split\n0.png,a;b,Train\n1.png,b,TRAIN\n2.png,a,valid\n3.png,,train\n4.png,b,Val\n5.png,a;b,test\n"


def data_of(path: Path, target: str = "labels", **options: Any) -> LabelsCsv:
    data = LabelsCsv(str(path), batch_size=2, image_size=8, target=target, **options)
    data.setup()
    return data


def greys(split: Any) -> list[int]:
    """The numbers of a split's images."""
    return [round(value / 40) for value in split.images[torch.arange(len(split))][:, 0, 0, 0].tolist()]


def test_splits_of_the_table(tmp_path: Path) -> None:
    data = data_of(table(tmp_path, SPLIT))
    assert [greys(split) for split in (data.train, data.val, data.test)] == [[0, 1, 3], [2, 4], [5]]
    assert data.train is not None
    batch = data.train.__getitems__([0, 2])
    assert batch["labels"].tolist() == [[1, 1], [0, 0]]
    assert batch["labels"].dtype == torch.uint8
    counts = data.train.class_counts()
    assert (counts.counts.tolist(), counts.totals.tolist()) == ([1, 2], [3, 3])


def test_a_table_without_test_rows_holds_some_out(tmp_path: Path) -> None:
    data = data_of(table(tmp_path, SPLIT.replace("test", "train")))
    assert greys(data.val) == [2, 4]
    assert sorted(greys(data.train) + greys(data.test)) == [0, 1, 3, 5]
    assert len(data.test) == 1


def test_a_damaged_file_is_dropped_with_its_labels(tmp_path: Path) -> None:
    path = table(tmp_path, SPLIT)
    (tmp_path / "0.png").write_bytes(b"no image")
    data = data_of(path)
    assert data.train is not None
    assert greys(data.train) == [1, 3]
    assert data.train.label_sets.tolist() == [[0, 1], [0, 0]]
    assert data.problems[0]["count"] == 1


@pytest.mark.parametrize("name", ["set", "Partition"])
def test_a_column_of_names_of_splits_divides_the_images(tmp_path: Path, name: str) -> None:
    named, other = (data_of(table(tmp_path, SPLIT.replace("split", some))) for some in ("split", name))
    assert [greys(data) for data in (named.train, named.val, named.test)] == [
        greys(data) for data in (other.train, other.val, other.test)
    ]


def test_a_missing_file_is_dropped_with_its_labels(tmp_path: Path) -> None:
    path = table(tmp_path, SPLIT)
    (tmp_path / "0.png").unlink()
    data = data_of(path)
    assert greys(data.train) == [1, 3]
    assert data.problems[0]["kind"] == "missing image files"


def test_drawn_splits_depend_on_the_seed_but_the_test_set_does_not(tmp_path: Path) -> None:
    count = 60
    rows = "".join(f"{k}.png,{'a;b' if k % 3 else 'b'}\n" for k in range(count))
    for number in range(count):
        Image.new("RGB", (4, 4), (4 * number,) * 3).save(tmp_path / f"{number}.png")
    path = table(tmp_path, "file,labels\n" + rows, images=0)
    one, same, other = (data_of(path, seed=seed, val_fraction=0.25) for seed in (1, 1, 2))
    parts = [[split.rows.tolist() for split in (data.train, data.val)] for data in (one, same, other)]
    assert parts[0] == parts[1] != parts[2]
    assert torch.equal(one.test.images[torch.arange(9)], other.test.images[torch.arange(9)])
    assert (len(one.train), len(one.val), len(one.test)) == (38, 13, 9)
    assert one.test.class_counts().counts.tolist() == [6, 9]  # two thirds have a, as in the whole


def test_one_label_an_image_serves_classification(tmp_path: Path) -> None:
    rows = [f"{k}.png,{'cat' if k % 2 else 'dog'},{'test' if k > 3 else 'train'}\n" for k in range(6)]
    path = table(tmp_path, "file,label,split\n" + "".join(rows))
    data = data_of(path, "label", val_fraction=0.5)
    assert data.classes == ("cat", "dog")
    assert data.test.labels.tolist() == [1, 0]

    path.write_text(path.read_text().replace("cat", "cat;dog"))
    with pytest.raises(ValueError, match=r"3 of 6 images .* have none or several: .*1.png \(2\).* task=multilabel"):
        data_of(path, "label")


def test_a_class_that_is_only_tested_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,split\n0.png,a,train\n1.png,a,train\n2.png,b,test\n")
    with pytest.raises(ValueError, match="classes without an image to train on: b"):
        data_of(path, "label")


def test_rarest_labels() -> None:
    sets = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert rarest_labels(sets).tolist() == [1, 0, 3, 2]


def test_scenes_have_the_labels_of_their_objects() -> None:
    from cv_lab.data.scenes import CLASSES, generate_scenes
    from cv_lab.data.shapes import TEST_SEED, Shapes

    data = Shapes(40, 20, 32, batch_size=4, target="labels")
    data.setup()
    scenes = generate_scenes(20, 32, TEST_SEED)
    expected = [[int(k in row) for k in range(len(CLASSES))] for row in scenes.instance_classes.tolist()]
    assert np.array_equal(data.test.__getitems__(list(range(20)))["labels"].numpy(), expected)
