"""Draw the rooms of the package, its folders and top-level modules, with an arrow from each to those that it imports.

python scripts/draw_architecture.py   # writes docs/images/architecture.svg
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[1]))

from cv_lab.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cv_lab"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, FLOOR = 900, 92  # of the picture, and from one floor to the next, in pixels
BOX = (104, 34)  # width and height of a room

Arrow = tuple[str, str]  # a room, and one that it imports


def room_of(module: str) -> str | None:
    """The room of a module, such as "tasks" of "cv_lab.tasks.base"; None outside of the package and for itself."""
    package, *names = module.split(".")
    return names[0] if package == "cv_lab" and names and not names[0].startswith("_") else None


def imports_of(file: Path) -> Iterator[str]:
    """Names of all modules that a file imports, those inside of functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def arrows() -> set[Arrow]:
    """From each room to each other room that it imports. The command imports its subcommands by name."""
    files = [(file, ".".join(file.relative_to(ROOT).with_suffix("").parts)) for file in PACKAGE.rglob("*.py")]
    pairs = [(room_of(module), room_of(name)) for file, module in files for name in imports_of(file)]
    pairs += [("cli", room_of(module)) for module, _ in COMMANDS.values()]
    return {(source, target) for source, target in pairs if source and target and source != target}


def circular(pairs: set[Arrow]) -> set[Arrow]:
    """The arrows that lead back to a room from which one has come; there should be none."""
    found: set[Arrow] = set()
    done: set[str] = set()

    def visit(room: str, above: tuple[str, ...]) -> None:
        for target in sorted(target for source, target in pairs if source == room):
            if target in (*above, room):
                found.add((room, target))
            elif target not in done:
                visit(target, (*above, room))
        done.add(room)

    for room in sorted({source for source, _ in pairs} - {target for _, target in pairs}):
        visit(room, ())
    return found


def floors(pairs: set[Arrow]) -> dict[str, int]:
    """The floor of each room, one above the highest that it imports; rooms that import no other are on floor 0.

    Args:
        pairs: arrows without a circle.
    """
    level = dict.fromkeys(sorted({room for pair in pairs for room in pair}), 0)
    for _ in level:  # no way is longer than the number of rooms
        for source, target in pairs:
            level[source] = max(level[source], level[target] + 1)
    return level


def direct(pairs: set[Arrow]) -> set[Arrow]:
    """The arrows that no way over other rooms replaces."""
    below: dict[str, set[str]] = {}
    for room in sorted(levels := floors(pairs), key=levels.__getitem__):
        targets = {target for source, target in pairs if source == room}
        below[room] = targets.union(*(below[target] for target in targets))
    return {(a, c) for a, c in pairs if not any((a, b) in pairs and c in below[b] for b in below)}


def places(pairs: set[Arrow]) -> dict[str, tuple[float, float]]:
    """The centre of each room, highest floor first; rooms of a floor stand below those that import them."""
    level = floors(pairs)
    found: dict[str, tuple[float, float]] = {}

    def middle(room: str) -> float:
        above = [found[source][0] for source, target in pairs if target == room]
        return sum(above) / len(above) if above else WIDTH / 2

    for floor in range(max(level.values()), -1, -1):
        row = sorted((room for room in level if level[room] == floor), key=lambda room: (middle(room), room))
        y = (max(level.values()) - floor + 0.5) * FLOOR
        found |= {room: ((i + 0.5) * WIDTH / len(row), y) for i, room in enumerate(row)}
    return found


def picture(pairs: set[Arrow]) -> str:
    """The picture as SVG. An arrow's title names both its rooms; those that others imply are light, circles red."""
    back = circular(pairs)
    place, strong = places(pairs - back), direct(pairs - back)
    height = (max(floors(pairs - back).values()) + 1) * FLOOR
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#456"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for pair in sorted(pairs, key=lambda pair: (pair in strong, pair in back, pair)):
        (x, y), (to_x, to_y) = place[pair[0]], place[pair[1]]
        start, end, bend = y + BOX[1] / 2, to_y - BOX[1] / 2, FLOOR / 2
        look = 'stroke="#456" stroke-width="1.4" marker-end="url(#head)"' if pair in strong else 'stroke="#dde3e8"'
        look = 'stroke="#d22" stroke-width="2"' if pair in back else look
        curve = f"M{x:.0f} {start:.0f}C{x:.0f} {start + bend:.0f} {to_x:.0f} {end - bend:.0f} {to_x:.0f} {end:.0f}"
        lines.append(f'<path d="{curve}" fill="none" {look}><title>{" imports ".join(pair)}</title></path>')
    for room, (x, y) in sorted(place.items()):
        left, top = x - BOX[0] / 2, y - BOX[1] / 2
        lines += [
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef3f7" '
            'stroke="#456"/>',
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" font-size="15" fill="#123">{escape(room)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(arrows()), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
