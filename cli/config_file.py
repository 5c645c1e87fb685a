"""Options in a file: ``lapq.toml``.

Its keys are the fields of `QuantizationConfig`; the table ``preprocessing`` holds those of `Preprocessing`
and ``preset``, ``gate`` those of `Gate` and ``tracking`` those of `Tracking`.
"""

import json
import math
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.common.docstrings import documented
from onnx_lapq.common.kinds import kinds
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.study.gate import Gate
from onnx_lapq.study.tracking import Tracking

__all__ = ["default_config", "read_config"]

_WIDTH = 100
_HEADER = """\
# Options of onnx-lapq: onnx-lapq MODEL CALIB -o OUT --config lapq.toml
# A flag on the command line wins over this file, this file over the default. A line with # in front is not
# set (None); it shows the default, where there is one."""
_PRESET = "Start from a known preprocessing; what is set below replaces its values."


def read_config(path: Path) -> dict[str, Any]:
    """Read an option file.

    Args:
        path: A TOML file.

    Returns:
        Its values by name, those of the tables beside the others; not yet checked.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or has a key that is no option.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}; correct it") from error
    values: dict[str, Any] = {}
    for table, names in _tables().items():
        part = content if not table else content.pop(table, {})
        if not isinstance(part, dict):
            raise ConfigError(f"{path}: {table!r} is a table; write [{table}] above its keys")
        _refuse_unknown(path, table, part, names)
        _refuse_other_kinds(path, part)
        values |= part
    return values


def default_config() -> str:
    """An option file that sets every option to its default, with what each of them means."""
    lines = [_HEADER, ""]
    texts = documented(QuantizationConfig)
    defaults = QuantizationConfig()
    for name in _tables()[""]:
        lines += _entry(name, texts[name], getattr(defaults, name), active=True)
    lines += ["[preprocessing]", ""]
    lines += _entry("preset", _PRESET, None, active=False)
    for name, text in documented(Preprocessing).items():
        lines += _entry(name, text, getattr(defaults.preprocessing, name), active=False)
    lines += ["[gate]", ""]
    for name, text in documented(Gate).items():
        lines += _entry(name, text, None, active=False)
    lines += ["[tracking]", ""]
    for name, text in documented(Tracking).items():
        lines += _entry(name, text, getattr(Tracking(), name), active=False)
    return "\n".join(lines)


def _tables() -> dict[str, list[str]]:
    """Names of the options by table, "" for the top; tables first, so that the top is what is left."""
    tables = {
        "preprocessing": ["preset", *(field.name for field in fields(Preprocessing))],
        "gate": [field.name for field in fields(Gate)],
        "tracking": [field.name for field in fields(Tracking)],
    }
    top = [field.name for field in fields(QuantizationConfig) if field.name not in tables]
    return tables | {"": top}


def _refuse_unknown(path: Path, table: str, part: dict[str, Any], names: list[str]) -> None:
    for key in part:
        if key not in names:
            near = get_close_matches(key, names, n=1, cutoff=0)
            where = f" in [{table}]" if table else ""
            raise ConfigError(f"{path}: there is no option {key!r}{where}; the nearest is {near[0]!r}")


def _refuse_other_kinds(path: Path, part: dict[str, Any]) -> None:
    """Refuse what no type of an option reads: lists in lists, tables, infinity, numbers for true or false."""
    for key, value in part.items():
        items = value if isinstance(value, list) else [value]
        if _takes_bool(key):
            if type(value) is not bool:
                raise ConfigError(f"{path}: option {key!r} is either true or false; correct it")
        elif not all(type(item) in (int, str) or _is_finite(item) for item in items):
            raise ConfigError(f"{path}: option {key!r} takes finite numbers or texts; correct it")
        elif tuple[str, ...] in _types(key) and not all(isinstance(item, str) for item in items):
            raise ConfigError(f'{path}: option {key!r} takes texts, such as ["Gemm"]; correct it')
        elif isinstance(value, list) and not _takes_list(key):
            raise ConfigError(f"{path}: option {key!r} takes one value, not a list; correct it")


def _is_finite(item: object) -> bool:
    return isinstance(item, float) and math.isfinite(item)


def _takes_bool(key: str) -> bool:
    return bool in _types(key)


def _takes_list(key: str) -> bool:
    return any(get_origin(kind) is tuple for kind in _types(key))


def _types(key: str) -> tuple[Any, ...]:
    """The types of an option; of a union all of them."""
    for options in (QuantizationConfig, Preprocessing, Gate):
        if key in kinds(options):
            return kinds(options)[key]
    return (str,)


def _entry(name: str, text: str, value: object, *, active: bool) -> Iterator[str]:
    """The lines of an option; one without a value is not set."""
    yield from (f"# {line}" for line in textwrap.wrap(text, _WIDTH))
    if value is None:
        yield f"# {name} ="
    else:
        yield f"{'' if active else '# '}{name} = {_toml(value)}"
    yield ""


def _toml(value: object) -> str:
    """A value as TOML writes it, which for these types is JSON."""
    return json.dumps(value)
