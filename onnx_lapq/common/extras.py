"""Optional dependencies: there, or one sentence that says how to get them."""

from importlib.util import find_spec

from onnx_lapq.errors import ConfigError

__all__ = ["require_extra"]


def require_extra(extra: str, *modules: str) -> None:
    """Refuse to start what needs modules that are not installed.

    Args:
        extra: The extra that installs them.
        modules: Names to import.

    Raises:
        ConfigError: One of them is missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        names = " and ".join(missing)
        raise ConfigError(f'{names}: not installed; run pip install ".[{extra}]" in a clone of onnx-lapq')
