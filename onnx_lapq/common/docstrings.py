"""What a docstring says of the fields of a dataclass."""

import inspect
import textwrap

__all__ = ["documented"]


def documented(kind: type) -> dict[str, str]:
    """The entries of a docstring's ``Attributes`` by field name, one line each, without double backticks."""
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(attributes).splitlines():
        if not line.startswith(" "):
            name, _, line = line.partition(": ")
        texts[name] = f"{texts.get(name, '')} {line.strip()}".strip().replace("``", "")
    return texts
