"""Which categories of a COCO json a data set takes, and the class of each."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cv_lab.data.coco_json import CocoJson
from cv_lab.data.instances import by_id
from cv_lab.data.masks import class_names
from cv_lab.data.problems import Problems


def choose_categories(coco: CocoJson, wanted: Sequence[str] | str | int | None) -> tuple[str, ...]:
    """Return the names of the categories that are `wanted`, in the order of their ids.

    Categories of one name are one class.

    Args:
        coco: of the training set.
        wanted: names, one name, or a number n for the n with most annotations; None for all.

    Raises:
        ValueError: if a name is unknown, or no category is left.
    """
    ordered = sorted(coco.categories, key=lambda category: by_id(category["id"]))
    known = list(dict.fromkeys(category["name"] for category in ordered))
    if wanted is None:
        return tuple(known)
    if type(wanted) is int:  # true is none
        names = {category["id"]: category["name"] for category in ordered}
        counts = Counter(names[a["category_id"]] for some in coco.annotations.values() for a in some)
        frequent = {name for name, _ in counts.most_common(wanted)}
        chosen = [name for name in known if name in frequent]
    else:
        asked = class_names(wanted)
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(f"data.classes names {', '.join(unknown)}, but there are {', '.join(known)}")
        chosen = [name for name in known if name in asked]
    if not chosen:
        raise ValueError(
            f"data.classes={wanted} takes no category: name some, or give how many of the most frequent to take"
        )
    return tuple(chosen)


def class_numbers(coco: CocoJson, classes: Sequence[str], known: Sequence[str], problems: Problems) -> dict[Any, int]:
    """Return the class of each category by its id; categories are the same if their names are.

    Args:
        coco: of any split.
        classes: the names that are taken.
        known: the names that the training set has.
        problems: are told of categories of one name, and of objects whose category the training set lacks.
    """
    numbers = {category["id"]: category["name"] for category in coco.categories}
    counts = Counter(numbers.values())
    for name in (name for name, count in counts.items() if count > 1 and name in classes):
        problems.note("categories have the name of another and are one class with it", name)
    for some in coco.annotations.values():
        for annotation in some:
            if numbers[annotation["category_id"]] not in known:
                name = numbers[annotation["category_id"]]
                problems.drop("annotations of categories that the training set lacks", f"{annotation['name']}: {name}")
    return {id: classes.index(name) for id, name in numbers.items() if name in classes}
