"""Objects in files of their own, one for each image: what the readers of all such formats share."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cv_lab.data.base import Split
from cv_lab.data.coco import Coco
from cv_lab.data.coco_json import CocoJson, Record
from cv_lab.data.layout import contents, files_below, image_files, split_folders
from cv_lab.data.mask_pairs import images_folder, listed_names, names_of
from cv_lab.data.problems import Problems, Unusable


class ObjectFiles(Coco):
    """Images with a file of objects each. An image without a file is dropped, as one that nobody looked at.

    Subclasses give :meth:`objects_in`, and where files lie elsewhere, :meth:`file_of` and `images`.

    Args:
        root: folder of the images and files. Folders in it, or in its folder of images, that are called like splits
            divide it, or lists of names do.
        classes: see :class:`~cv_lab.data.coco.Coco`; likewise `train_images` and `test_images`.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    suffix: str  # of the files of objects
    empty_without_file = False  # whether an image without a file is one without objects
    lists: str | None = None  # folder of the lists of names, if the format has them

    def __init__(
        self,
        root: str,
        classes: Sequence[str] | str | int | None = None,
        train_images: int | None = None,
        test_images: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, root, None, None, classes, train_images, test_images, **options)
        self.root = Path(root).expanduser()

    @abstractmethod
    def objects_in(self, file: Path, image: Path, problems: Problems) -> tuple[Any, list[Record]]:
        """Return the size of an image, height and width, or None where its file does not tell; and its objects.

        Objects are annotations as :class:`~cv_lab.data.coco_json.CocoJson` has them, with a class for "category_id".

        Raises:
            Unusable: if the file cannot be read.
        """

    @cached_property
    def images(self) -> Mapping[Split, Sequence[Path]]:
        """The images of each split."""
        folder = images_folder(self.root) or self.root
        if lists := listed_names(self.root, self.lists):
            by_name = names_of(image_files(folder), folder)
            return {split: [by_name.get(name, folder / name) for name in names] for split, names in lists.items()}
        apart = split_folders(folder) or split_folders(self.root)
        apart = apart if "train" in apart else {"train": folder}
        return {split: image_files(path) for split, path in apart.items()}

    def file_of(self, image: Path) -> Path | None:
        """The file of objects of an image: of several that have its name, the one in folders of the same names.

        Raises:
            Unusable: if there are several of these.
        """
        near = defaultdict(list)
        for path in self._by_name.get(image.stem, ()):
            near[len(set(path.parent.parts) & set(image.parent.parts))].append(path)
        found = near[max(near)] if near else []
        if len(found) > 1:
            raise Unusable("images with several files of objects", f"{image}: {found[0]} and {found[1]}")
        return found[0] if found else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in self.all_files():
            found[path.stem].append(path)
        return found

    def all_files(self) -> list[Path]:
        """The files of objects in `root`."""
        paths = (self.root / name for name in sorted(files_below(self.root)))
        return [path for path in paths if path.suffix.lower() == self.suffix]

    def categories(self, names: set[Any]) -> list[Record]:
        """The categories, given the "category_id" of all objects."""
        return [{"id": name, "name": name} for name in names]

    def splits(self) -> tuple[Split, ...]:
        return tuple(self.images)

    def fingerprint(self) -> str:
        files = [path for split, images in self.images.items() for path in (*images, *self.annotation_files(split))]
        return contents(self.root, *(path for path in files if not path.is_relative_to(self.root)))

    def folder(self, split: Split) -> Path:
        return self.root

    def annotation_files(self, split: Split) -> list[Path]:
        return [file for image in self.images[split] if (file := self._file_or_none(image)) is not None]

    def _file_or_none(self, image: Path) -> Path | None:
        try:
            return self.file_of(image)
        except Unusable:
            return None

    def read(self, split: Split) -> tuple[CocoJson, Problems]:
        problems = Problems(f"{self.root}, {split}")
        images: dict[Any, Record] = {}
        annotations: dict[Any, list[Record]] = {}
        for path in self.images[split]:
            name, size = str(path), None
            objects: list[Record] = []
            try:
                file = self.file_of(path)
                if file is not None:
                    size, objects = self.objects_in(file, path, problems)
                elif self.empty_without_file:
                    problems.note("images have no file of objects, and count as images without objects", name)
                else:
                    raise Unusable("images without a file of objects", name)
            except Unusable as error:
                problems.drop(error.kind, error.example)
                continue
            images[name] = {"id": name, "file_name": name, "size": size}
            annotations[name] = objects
        if split == "train":
            self.drop_unused(problems)
        if not images:
            raise problems.nothing_left(len(self.images[split]))
        categories = self.categories({one["category_id"] for some in annotations.values() for one in some})
        return CocoJson(images, categories, annotations), problems

    def drop_unused(self, problems: Problems) -> None:
        """Add files of objects that belong to no image to `problems`."""
        if listed_names(self.root, self.lists):
            return
        used = {file for split in self.images for file in self.annotation_files(split)}
        for path in (path for path in self.all_files() if path not in used):
            problems.drop("files of objects without an image", str(path))
