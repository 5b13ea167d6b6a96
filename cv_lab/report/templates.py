"""Fill in the templates of pages and documents."""

import re
from typing import Any

import jinja2

from cv_lab.report.latex import escaped


def render(template: str, content: dict[str, Any], package: str = "cv_lab.report") -> str:
    """A template in the folder of `package`, which may include those of the reports, filled in."""
    latex = {"block_start_string": "<%", "block_end_string": "%>"} if template.endswith(".tex.jinja") else {}
    if latex:  # which has braces and per cents of its own
        latex |= {"variable_start_string": "<<", "variable_end_string": ">>", "comment_start_string": "<#"}
        latex |= {"comment_end_string": "#>"}
    folders = [jinja2.PackageLoader(name, ".") for name in dict.fromkeys((package, "cv_lab.report"))]
    environment = jinja2.Environment(
        **latex,  # type: ignore[arg-type]
        loader=jinja2.ChoiceLoader(folders),
        autoescape=template.endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": _markdown, "tex": escaped}
    words = environment.get_template(template).render(content)
    return re.sub(r"\n{3,}", "\n\n", words) if template.endswith(".md.jinja") else words


def _markdown(value: object) -> str:
    """Text with everything that Markdown or its tables would take for markup escaped, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(str(value).split()))
