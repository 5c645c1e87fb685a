"""How every figure looks, and how it becomes bytes: the same ones every time."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLORS", "figure_style", "inline_svg", "new_figure", "shorten", "to_bytes"]

COLORS = {
    "ink": "#24292f",
    "line": "#c9d1d9",
    "one": "#1f6fb2",
    "two": "#c2571a",
    "three": "#2f8a57",
    "area": "#8fb4d6",
}
"""Colours by what they are for; on a page each is a CSS variable of that name."""

_STYLE: dict[str, Any] = {
    "axes.edgecolor": COLORS["ink"],
    "axes.labelcolor": COLORS["ink"],
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": COLORS["line"],
    "legend.frameon": False,
    "legend.labelcolor": COLORS["ink"],
    "path.simplify": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "onnx-lapq",
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "xtick.color": COLORS["ink"],
    "ytick.color": COLORS["ink"],
}


@contextmanager
def figure_style() -> Iterator[None]:
    """The style that figures are made and saved in, whatever the user's own settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes, row by row; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def to_bytes(figure: Figure, image: Literal["png", "svg"]) -> bytes:
    """The figure as a file."""
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if image == "svg" else {"Software": None}
    figure.savefig(file, format=image, dpi=150, metadata=metadata, transparent=False)
    return file.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element of a page that holds others.

    Args:
        figure: The figure.
        name: Unique on the page; prefixes all ids.
        description: What it shows, for who does not see it; plain words, no markup.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = file.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<style .*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for role, color in COLORS.items():
        text = text.replace(color, f"var(--{role})")
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1).strip()


def shorten(name: str, length: int = 28) -> str:
    """A tensor's name that fits: the middle of a long one left out, what does not print shown as '?'."""
    printed = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(printed) <= length:
        return printed
    return f"{printed[: length // 2 - 1]}…{printed[-(length // 2) :]}"
