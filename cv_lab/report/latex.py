"""Text for LaTeX."""

SPECIALS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "[": "{[}",  # which would be taken for the option of \\ at the start of a row
    "]": "{]}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "“": "``",
    "”": "''",
    "·": r"\textperiodcentered{}",
}


def escaped(value: object) -> str:
    """Text with everything escaped that LaTeX would take for a command, in one line.

    Letters that pdfTeX has in no font of its own become question marks.
    """
    words = " ".join(str(value).split())
    return "".join(SPECIALS.get(c, c if c.isascii() or ("À" <= c <= "ÿ") else "?") for c in words)
