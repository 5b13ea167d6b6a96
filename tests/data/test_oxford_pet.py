from pathlib import Path

import pytest
from PIL import Image

from cv_lab.data.oxford_pet import OxfordPet
from tests.conftest import need


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two breeds of cats and one of dogs, four photographs each to train on and one to test."""
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    lines: dict[str, list[str]] = {"trainval": ["# a comment, as the published lists have"], "test": []}
    for breed, (name, species) in enumerate([("Abyssinian", 1), ("Maine_Coon", 1), ("beagle", 2)], start=1):
        for number in range(5):
            Image.new("RGB", (40, 30), (80 * breed, 0, 0)).save(folder / f"images/{name}_{number}.jpg")
            lines["test" if number == 4 else "trainval"].append(f"{name}_{number} {breed} {species} {breed}")
    for name, text in lines.items():
        (folder / f"annotations/{name}.txt").write_text("\n".join(text))
    return tmp_path


def test_breeds_and_species_are_read(root: Path) -> None:
    data = OxfordPet(str(root), image_size=16, val_fraction=0.25)
    data.prepare_data()
    data.setup()
    assert data.classes == ("Abyssinian", "Maine Coon", "Beagle")
    assert data.train is not None
    assert data.train.images[:].shape == (9, 3, 16, 16)
    assert data.val.labels.tolist() == data.test.labels.tolist() == [0, 1, 2]
    assert abs(int(data.test.images[2][0, 8, 8]) - 240) < 4
    species = OxfordPet(str(root), labels="species", image_size=16).load("test")
    assert species.classes == ("cat", "dog")
    assert species.labels.tolist() == [0, 0, 1]


def test_bad_input_is_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="breed or species"):
        OxfordPet(str(root), labels="colour")
    with pytest.raises(FileNotFoundError, match=r"lacks images and annotations.*data\.download=true"):
        OxfordPet(str(tmp_path / "nowhere"), download=False).prepare_data()
    with pytest.raises(FileNotFoundError, match="no list"):
        OxfordPet(str(root), train_list="mine").load("train")
    annotations = root / "oxford-iiit-pet/annotations"
    (annotations / "few.txt").write_text("Abyssinian_0 1 1 1\n")
    with pytest.raises(ValueError, match=r"Maine_Coon_4 .* class without images in few"):
        OxfordPet(str(root), train_list="few").load("test")
    (annotations / "damaged.txt").write_text("Abyssinian_0 1\n")
    with pytest.raises(ValueError, match="line 1 of"):
        OxfordPet(str(root), train_list="damaged").load("train")
    (root / "oxford-iiit-pet/images/beagle_4.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images .* beagle_4\.jpg"):
        OxfordPet(str(root)).load("test")


def test_the_real_lists_are_read() -> None:
    data = OxfordPet(str(need("oxford-iiit-pet")), train_list="balanced37_train", test_list="balanced37_val")
    lines = data._read("balanced37_train")
    assert len({line.breed for line in lines}) == 37
