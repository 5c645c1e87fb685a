"""Tables of figures."""

from rich.table import Table

__all__ = ["figures_table"]


def figures_table(name: str, *headings: str, title: str | None = None) -> Table:
    """A table whose first column holds names and whose others hold figures, to the right."""
    table = Table(name, title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
