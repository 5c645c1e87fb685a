"""Options in a file: ``lapq.toml``.

Its keys are the fields of `QuantizationConfig`; the table ``preprocessing`` holds those of `Preprocessing`
and ``preset``, the table ``gate`` those of `Gate`.
"""

import json
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import click

from onnx_lapq.cli.fields import TABLES, Field, text_type
from onnx_lapq.common.records import fit, takes
from onnx_lapq.errors import ConfigError
from onnx_lapq.study.limits import Gate

if TYPE_CHECKING:
    from onnx_lapq.report.record import Report

__all__ = ["default_config", "promoted_config", "read_config"]

_WIDTH = 100
_HEADER = """\
# Options of onnx-lapq: onnx-lapq MODEL CALIB -o OUT --config lapq.toml
# A flag on the command line wins over this file, this file over the default. A line with # in front is not
# set (None); it shows the default, where there is one."""

_PROMOTED = "# The bits that --promote found: onnx-lapq MODEL CALIB -o OUT --config THIS_FILE"


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """Read an option file.

    Args:
        path: A TOML file.

    Returns:
        By table, "" for the top: its values by name, each of the type that the option has.

    Raises:
        ConfigError: The file cannot be read, is no TOML, has a key that is no option, or a value that an
            option does not take.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}; correct it") from error
    parts = {table: content.pop(table, {}) for table in TABLES if table}
    return {table: _read_table(path, table, part) for table, part in {**parts, "": content}.items()}


def default_config() -> str:
    """An option file that sets every option to its default, with what each of them means."""
    lines = [_HEADER, ""]
    for table, options in TABLES.items():
        if table:
            lines += [f"[{table}]", ""]
        for option in options.values():
            lines += _entry(option, active=not table)
    return "\n".join(lines)


def promoted_config(report: "Report", gate: Gate) -> str:
    """An option file of a run that raised bits: what is no default, with the bits that it found.

    Args:
        report: Of the run.
        gate: The limits that it kept; they are left out where they were checked on calibration samples.
    """
    options = {**report.options, "bits": report.promotion.bits if report.promotion else ()}
    limits = {} if gate.test is None else {**asdict(gate), "promote": False}
    given = {"": options, "preprocessing": options.pop("preprocessing"), "gate": limits}
    lines = [_PROMOTED]
    for table, fields in TABLES.items():
        values = {name: given[table].get(name, field.default) for name, field in fields.items()}
        changed = {name: value for name, value in values.items() if value != fields[name].default}
        lines += [f"[{table}]"] if table and changed else []
        lines += [f"{name} = {_toml(value)}" for name, value in changed.items()]
    return "\n".join([*lines, ""])


def _toml(value: Any) -> str:
    """A value as TOML has it, which for these types is JSON."""
    return json.dumps(value, ensure_ascii=False)


def _read_table(path: Path, table: str, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise ConfigError(f"{path}: {table!r} is a table; write [{table}] above its keys")
    options = TABLES[table]
    for key in part:
        if key not in options:
            near = get_close_matches(key, options, n=1, cutoff=0)
            where = f" in [{table}]" if table else ""
            raise ConfigError(f"{path}: there is no option {key!r}{where}; the nearest is {near[0]!r}")
    return {key: _read_value(path, options[key], value) for key, value in part.items()}


def _read_value(path: Path, option: Field, value: Any) -> Any:
    """A value as TOML has it, or as the command line has it, such as "512M"."""
    with suppress(TypeError, ValueError):
        return fit(value, option.hint)
    as_text = text_type(option)
    with suppress(ValueError, click.BadParameter):
        if as_text is not None and type(value) in (int, str):
            return fit(as_text.convert(str(value), None, None), option.hint)
    wanted = takes(option.hint).removesuffix(f" or {takes(NoneType)}")
    raise ConfigError(f"{path}: {option.name} is {value!r}; give {wanted}")


def _entry(option: Field, *, active: bool) -> Iterator[str]:
    """The lines of an option; one without a value is not set."""
    yield from (f"# {line}" for line in textwrap.wrap(option.text.replace("`", ""), _WIDTH))
    if option.default is None:
        yield f"# {option.name} ="
    else:
        yield f"{'' if active else '# '}{option.name} = {_toml(option.default)}"
    yield ""
