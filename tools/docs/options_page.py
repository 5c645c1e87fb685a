"""Write docs/reference/options.md: every option of a run, from the same source as flags and option files.

python tools/docs/options_page.py
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from onnx_lapq.cli.commands.quantize import quantize
from onnx_lapq.cli.fields import SECTIONS, TABLES, Field, default_text, flag
from onnx_lapq.common.records import takes

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "options.md"

_HEAD = """\
# Options

<!-- Written by tools/docs/options_page.py; change the docstrings of onnx_lapq/config.py instead. -->

Every option of `onnx-lapq quantize`. The other commands take some of them: `onnx-lapq COMMAND --help-all`.

A key is the name of the option in a file for `--config` and in Python, where it is a field of
`QuantizationConfig`, of `Preprocessing` (table `[preprocessing]`, apart from `preset`), or of `Gate` (table
`[gate]`). A flag wins over the file, the file over the default. `onnx-lapq config` prints a file with all of
them. Lists are comma-separated on the command line; `--bits`, `--include`, `--exclude`, `--op-types`, `--set`
and `--batch-axis` may be repeated.
"""


def options_page() -> str:
    """The page as Markdown."""
    fields = {name: (table, field) for table, part in TABLES.items() for name, field in part.items()}
    parts = [_HEAD]
    for section in SECTIONS:
        found = [fields[name] for name in (*section.common, *section.others) if name in fields]
        rows = [_row(table, field) for table, field in found]
        parts.append(_table(section.title, ("flag", "key", "takes", "default", "meaning"), rows))
    parts.append(_table("On the command line only", ("flag", "meaning"), list(_others(fields))))
    return "\n".join(parts)


def _row(table: str, field: Field) -> tuple[str, ...]:
    option = flag(field)
    key = f"{table}.{field.name}" if table else field.name
    wanted = takes(field.hint).removesuffix(" or None").removeprefix("one of ")
    flags = ", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts))
    default = default_text(field)
    return flags, f"`{key}`", wanted, f"`{default}`" if default else "", field.text


def _others(fields: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for option in quantize.params:
        if isinstance(option, click.Option) and option.name not in fields:
            yield ", ".join(f"`{text}`" for text in option.opts), option.help or ""


def _table(title: str, heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *(tuple(_cell(text) for text in row) for row in rows)]
    return "\n".join((f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(options_page())
    sys.stdout.write(f"wrote {PAGE}\n")
