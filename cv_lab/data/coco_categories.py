"""Which categories of a COCO-format json a data set takes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cv_lab.data.masks import class_names


def choose_categories(
    categories: Iterable[dict[str, Any]],
    annotations: Iterable[dict[str, Any]],
    wanted: Sequence[str] | str | int | None,
) -> list[dict[str, Any]]:
    """Those of `categories` that are `wanted`, in the order of their ids.

    Args:
        categories: with "id" and "name".
        annotations: with "category_id".
        wanted: names, one name, or a number n for the n with most annotations; None for all.

    Raises:
        ValueError: if a name is unknown, or no category is left.
    """
    ordered = sorted(categories, key=lambda category: category["id"])
    if wanted is None:
        return ordered
    if isinstance(wanted, int):
        counts = Counter(annotation["category_id"] for annotation in annotations)
        frequent = {id for id, _ in counts.most_common(wanted)}
        chosen = [category for category in ordered if category["id"] in frequent]
    else:
        names = class_names(wanted)
        known = [category["name"] for category in ordered]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"data.classes names {', '.join(unknown)}, but there are {', '.join(known)}")
        chosen = [category for category in ordered if category["name"] in names]
    if not chosen:
        raise ValueError(
            f"data.classes={wanted} takes no category: name some, or give how many of the most frequent to take"
        )
    return chosen
