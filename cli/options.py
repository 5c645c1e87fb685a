"""Decorators that give a command options, and what the command then receives."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from onnx_lapq.calibration.preprocessing import PRESETS, Preprocessing
from onnx_lapq.cli.config_file import read_config
from onnx_lapq.cli.fields import SECTIONS, TABLES, flag
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.study.limits import Gate

__all__ = [
    "NODES",
    "file_keys",
    "files_read",
    "gate_options",
    "metric_option",
    "preprocessing_options",
    "run_options",
]

Command = Callable[..., Any]

NODES = tuple(name for name in (*SECTIONS[0].common, *SECTIONS[0].others) if name != "size_budget")
"""Options that decide which tensors get a quantizer, and at how many bits."""

_PATH, _VALUES = f"{__name__}.path", f"{__name__}.values"
"""Where a click context keeps its option file, and what that holds."""


def run_options(
    names: Collection[str] = TABLES[""], *, preprocessing: bool = True
) -> Callable[[Command], Command]:
    """Add options of a run, and ``--config``; the command receives ``config``.

    Args:
        names: Fields of `QuantizationConfig`.
        preprocessing: Whether those of image preprocessing are among them.
    """

    def add(command: Command) -> Command:
        @wraps(command)
        def with_config(*args: Any, **given: Any) -> Any:
            image = {"preprocessing": given.pop("preprocessing")} if preprocessing else {}
            config = QuantizationConfig(**image, **_chosen("", names, given))
            return command(*args, config=config, **given)

        options = [flag(field) for name, field in TABLES[""].items() if name in names]
        added = _with([*options, _config_option()], with_config)
        return preprocessing_options(added) if preprocessing else added

    return add


def preprocessing_options(command: Command) -> Command:
    """Add the options of image preprocessing; the command receives ``preprocessing``."""

    @wraps(command)
    def with_preprocessing(*args: Any, **given: Any) -> Any:
        chosen = _chosen("preprocessing", TABLES["preprocessing"], given)
        preset = chosen.pop("preset", None)
        base = PRESETS[preset] if preset else Preprocessing()
        return command(*args, preprocessing=replace(base, **chosen), **given)

    return _with(map(flag, TABLES["preprocessing"].values()), with_preprocessing)


def gate_options(command: Command) -> Command:
    """Add the limits that a quantized model must keep; the command receives ``gate``."""

    @wraps(command)
    def with_gate(*args: Any, **given: Any) -> Any:
        return command(*args, gate=Gate(**_chosen("gate", TABLES["gate"], given)), **given)

    return _with(map(flag, TABLES["gate"].values()), with_gate)


def metric_option(command: Command) -> Command:
    """Add the user's own metric; the command receives ``metric``."""
    return _with([flag(TABLES["gate"]["metric"])], command)


def files_read(*given: Path | None) -> list[Path]:
    """Those of the arguments that were given, and the option file of this command."""
    found: Path | None = click.get_current_context().meta.get(_PATH)
    return [path for path in (*given, found) if path is not None]


def file_keys() -> set[str]:
    """Names of the options that the option file of this command sets."""
    tables = click.get_current_context().meta.get(_VALUES, {})
    return {name for values in tables.values() for name in values}


def _config_option() -> click.Option:
    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        if path is not None:
            ctx.meta[_PATH], ctx.meta[_VALUES] = path, read_config(path)

    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=read,
        help="An option file, see onnx-lapq config; flags win.",
    )


def _chosen(table: str, names: Iterable[str], given: dict[str, Any]) -> dict[str, Any]:
    """What flags say, taken out of ``given``, and what the option file says of the other names."""
    context = click.get_current_context(silent=True)
    file = context.meta.get(_VALUES, {}).get(table, {}) if context else {}
    flags = {name: given.pop(name) for name in names}
    repeated = {name: sum(values, ()) for name, values in flags.items() if values and _is_nested(values)}
    flags |= repeated
    return {name: file[name] for name in flags if name in file} | {
        name: value for name, value in flags.items() if value is not None and value != ()
    }


def _is_nested(values: Any) -> bool:
    """Whether these are the values of a flag that may be repeated, each of which holds several."""
    return isinstance(values, tuple) and isinstance(values[0], tuple)


def _with(options: Iterable[click.Option], command: Command) -> Command:
    """A command function that gets these options as well, before those it has."""
    params = getattr(command, "__click_params__", [])
    command.__click_params__ = [*params, *reversed(list(options))]  # type: ignore[attr-defined]
    return command
