"""Where the command starts: signals are minded before the second that the imports take."""

from onnx_lapq.cli.allocator import give_back_freed_memory
from onnx_lapq.cli.signals import leave_at_once

__all__ = ["main"]


def main() -> None:
    """Run the ``onnx-lapq`` command."""
    leave_at_once()
    give_back_freed_memory()
    from onnx_lapq.cli.main import main as command

    command(prog_name="onnx-lapq")
