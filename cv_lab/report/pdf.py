"""Charts as PDF, for LaTeX: the few elements that :mod:`cv_lab.report.chart` writes, as vectors.

Converters of SVG bring libraries of C (cairosvg) or take a second to import (matplotlib), and LaTeX reads no SVG.
"""

import base64
import zlib
from itertools import pairwise
from xml.etree import ElementTree

LETTERS = "cp1252"  # those of the fonts; others become question marks
INK = "#222222"  # what currentColor is on paper
# Widths of Helvetica's characters from the space to the tilde, in thousandths of the size (Adobe's font metrics).
WIDTHS = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, *[556] * 10, 278, 278, 584, 584),
    *(584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667),
    *(611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222),
    *(222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
)
ROUND = 0.5523  # of a quarter of a circle's radius, where the ends of its Bezier curve point
LINES = {"line", "polyline"}


def to_pdf(svg: str) -> str:
    """A picture of :meth:`~cv_lab.report.figures.Figure.svg` as a PDF of one page of the same size in points."""
    root = ElementTree.fromstring(svg)
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    page = _Page()
    page.draw(root, 1.0)
    content = "\n".join([f"1 0 0 -1 0 {height:g} cm", *page.operators]).encode(LETTERS, "replace")
    packed = base64.a85encode(zlib.compress(content)).decode() + "~>"  # so that the file is plain text
    states = " ".join(f"/{name} << /ca {alpha:g} /CA {alpha:g} >>" for alpha, name in page.states.items())
    resources = f"<< /Font << /F 5 0 R /B 6 0 R >> /ExtGState << {states} >> >>"
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /{} /Encoding /WinAnsiEncoding >>"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:g} {height:g}] /Contents 4 0 R /Resources {resources} >>",
        f"<< /Length {len(packed)} /Filter [/ASCII85Decode /FlateDecode] >>\nstream\n{packed}\nendstream",
        font.format("Helvetica"),
        font.format("Helvetica-Bold"),
    ]
    file, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += f"{number} 0 obj\n{body}\nendobj\n"
    size = len(places) + 1
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    file += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return f"{file}startxref\n{file.rindex('xref')}\n%%EOF\n"


class _Page:
    """The operators that draw a page, and the names of the opacities that they use."""

    def __init__(self) -> None:
        self.operators: list[str] = []
        self.states: dict[float, str] = {}

    def draw(self, element: ElementTree.Element, opacity: float) -> None:
        """Draw an element with what is inside it; y points down."""
        kind, get = element.tag.rpartition("}")[2], element.get
        opacity *= float(get("opacity", "1"))
        if kind in ("svg", "g"):
            x, y = get("x", "0"), get("y", "0")
            if moved := get("transform"):  # translate(x y)
                x, y = moved.removeprefix("translate(").rstrip(")").split()
            self.operators.append(f"q 1 0 0 1 {x} {y} cm")
            for child in element:
                self.draw(child, opacity)
            self.operators.append("Q")
        elif kind == "text":
            self._text(element, opacity)
        elif kind not in ("style", "title"):
            self._shape(kind, element, opacity)

    def _shape(self, kind: str, element: ElementTree.Element, opacity: float) -> None:
        get = element.get
        fill = "none" if kind in LINES else get("fill", "none")
        path = _path(kind, dict(element.items()))
        if fill != "none":
            shade = self._state(opacity * float(get("fill-opacity", "1")))
            self.operators.append(f"q /{shade} gs {_color(fill)} rg {path} f Q")
        if get("stroke", "none") != "none":
            state = self._state(opacity * float(get("stroke-opacity", "1")))
            dash = f"[{get('stroke-dasharray', '')}] 0 d {get('stroke-width', '1')} w"
            self.operators.append(f"q /{state} gs {_color(get('stroke', ''))} RG {dash} {path} S Q")

    def _text(self, element: ElementTree.Element, opacity: float) -> None:
        words, size = element.text or "", float(element.get("font-size", "12"))
        width = size / 1000 * sum(WIDTHS[ord(c) - 32] if " " <= c <= "~" else 556 for c in words)
        share = {"middle": 0.5, "end": 1.0}.get(element.get("text-anchor", ""), 0.0)
        x, y = float(element.get("x", "0")) - share * width, element.get("y")
        font = "B" if element.get("font-weight") == "600" else "F"
        escaped = "".join(f"\\{c}" if c in "()\\" else c for c in words)
        self.operators.append(
            f"q /{self._state(opacity)} gs {_color(element.get('fill', INK))} rg "
            f"BT /{font} {size:g} Tf 1 0 0 -1 {x:.1f} {y} Tm ({escaped}) Tj ET Q"
        )

    def _state(self, opacity: float) -> str:
        return self.states.setdefault(round(opacity, 3), f"S{len(self.states)}")


def _path(kind: str, at: dict[str, str]) -> str:
    """The operators that make an element's path."""
    if kind == "rect":
        return f"{at['x']} {at['y']} {at['width']} {at['height']} re"
    if kind == "circle":
        x, y, r = (float(at[name]) for name in ("cx", "cy", "r"))
        turns = [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 0)]
        parts = [f"{x + r:.2f} {y:.2f} m"]
        for (a, b), (c, d) in pairwise(turns):
            ends = [(a + ROUND * c, b + ROUND * d), (c + ROUND * a, d + ROUND * b), (c, d)]
            parts.append(" ".join(f"{x + r * u:.2f} {y + r * v:.2f}" for u, v in ends) + " c")
        return " ".join(parts)
    if kind == "line":
        return f"{at['x1']} {at['y1']} m {at['x2']} {at['y2']} l"
    first, *others = (point.replace(",", " ") for point in at["points"].split())
    return " ".join([f"{first} m", *(f"{point} l" for point in others), *(["h"] if kind == "polygon" else [])])


def _color(name: str) -> str:
    """Shares of red, green and blue of "#0072b2"."""
    value = (INK if name == "currentColor" else name).removeprefix("#")
    return " ".join(f"{int(value[i : i + 2], 16) / 255:.3f}" for i in (0, 2, 4))
