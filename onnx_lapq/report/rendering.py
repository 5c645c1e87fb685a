"""Pages that need nothing else, from templates beside this file."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from onnx_lapq.common.sizes import with_unit
from onnx_lapq.report.theme import shorten

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """Fill a template; HTML without scripts or references, the same for the same values."""
    environment = Environment(
        loader=PackageLoader("onnx_lapq.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "size": with_unit, "shorten": shorten}
    return environment.get_template(template).render(**values)


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"
