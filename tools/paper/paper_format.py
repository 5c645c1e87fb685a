"""How the tools of this folder show figures."""

from collections.abc import Sequence

__all__ = ["markdown", "percent"]


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "-" if share is None else f"{100 * share:.2f}"


def markdown(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A heading and a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join([f"### {heading}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])
