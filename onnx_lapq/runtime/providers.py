"""Execution providers of onnxruntime: which ones there are, and what they leave to the CPU."""

from typing import TYPE_CHECKING

from onnx_lapq.errors import ConfigError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["CPU", "find_provider", "left_to_cpu", "with_fallback"]

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"


def find_provider(name: str) -> str:
    """The full name of a provider.

    Args:
        name: As onnxruntime has it, or without ``ExecutionProvider``; in any case of letters.

    Raises:
        ConfigError: The installed onnxruntime has no such provider.
    """
    if name == CPU:  # every build has it; options are checked without loading onnxruntime
        return CPU
    import onnxruntime as ort

    names: list[str] = ort.get_available_providers()
    available = {full.removesuffix(_SUFFIX).lower(): full for full in names}
    found = available.get(name.lower().removesuffix(_SUFFIX.lower()))
    if found is None:
        raise ConfigError(
            f"provider {name!r} is not in the installed onnxruntime {ort.__version__}, which has "
            f"{' and '.join(names)}; give one of these, or install a build of onnxruntime that has it"
        )
    return found


def with_fallback(provider: str) -> list[str]:
    """Providers of a session, the first choice first; the CPU runs what others do not."""
    return [CPU] if provider == CPU else [provider, CPU]


def left_to_cpu(session: "InferenceSession") -> str | None:
    """A sentence on the nodes that a session's provider does not run; None where it runs all of them.

    Args:
        session: One that was opened by `onnx_lapq.runtime.session` for a provider.
    """
    provider = session.get_providers()[0]
    if provider == CPU or not hasattr(
        session, "get_provider_graph_assignment_info"
    ):  # before onnxruntime 1.24
        return None
    parts = [(part.ep_name, len(part.get_nodes())) for part in session.get_provider_graph_assignment_info()]
    total = sum(count for _, count in parts)
    left = sum(count for name, count in parts if name == CPU)
    return f"{CPU} runs the {left} of {total} nodes that {provider} does not" if left else None
