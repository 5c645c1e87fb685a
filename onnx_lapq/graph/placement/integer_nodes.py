"""Which arithmetic between layers runs on integer codes.

An integer kernel of an Add or a Concat saves time where codes are there anyway: its inputs are written by
integer kernels, and its output is read by one. Elsewhere its quantizers are noise for nothing. So a node
runs on codes if

1. its inputs come, through nodes that move data and rectifiers, from a convolution with a quantized input,
   from other nodes that run on codes, or from the inputs of the graph. Of a Concat one input has to; an
   operand that is broadcast need not, it is small;
2. its output goes, the same way, to a layer that reads codes or to another node that runs on codes.

Residual sums of a convolutional network pass, those of a transformer do not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from onnx_lapq.graph.placement import operators

__all__ = ["nodes_on_codes"]

Readers = Mapping[ir.Value, Sequence[tuple[ir.Node, int]]]


def nodes_on_codes(
    candidates: Iterable[ir.Node],
    readers: Readers,
    *,
    writes_codes: Callable[[ir.Node], bool],
    reads_codes: Callable[[ir.Node, int], bool],
) -> set[ir.Node]:
    """The arithmetic nodes that run on codes.

    Args:
        candidates: Nodes that have an integer kernel.
        readers: Nodes that read each value, and at which input.
        writes_codes: Whether a layer writes codes.
        reads_codes: Whether a layer reads codes at an input.
    """
    kept = set(candidates)
    while True:
        idle = {
            node
            for node in kept
            if not (
                _is_given_codes(node, kept, writes_codes) and _is_wanted(node, kept, readers, reads_codes)
            )
        }
        if not idle:
            return kept
        kept -= idle


def _is_given_codes(node: ir.Node, kept: set[ir.Node], writes_codes: Callable[[ir.Node], bool]) -> bool:
    given = [_is_written(value, kept, writes_codes) for value in _full_operands(node)]
    return any(given) if node.op_type == "Concat" else bool(given) and all(given)


def _full_operands(node: ir.Node) -> list[ir.Value]:
    """The inputs that are not broadcast."""
    operands = [value for value in node.inputs if value is not None]
    return (
        [value for value in operands if not any(_is_broadcast(value, other) for other in operands)]
        if node.op_type in ("Add", "Mul")
        else operands
    )


def _is_broadcast(value: ir.Value, other: ir.Value) -> bool:
    """Whether a value is repeated along an axis to meet another; unknown sizes count as equal."""
    if value.shape is None or other.shape is None:
        return False
    if len(value.shape) < len(other.shape):
        return True
    pairs = zip(reversed(value.shape), reversed(other.shape), strict=False)
    return any(mine == 1 and theirs != 1 for mine, theirs in pairs)


def _is_written(value: ir.Value, kept: set[ir.Node], writes_codes: Callable[[ir.Node], bool]) -> bool:
    producer = value.producer()
    if producer is None:
        return value.is_graph_input()
    if operators.is_data_movement(producer) or operators.is_rectifier(producer):
        source = producer.inputs[0]
        return source is not None and _is_written(source, kept, writes_codes)
    return producer in kept or writes_codes(producer)


def _is_wanted(
    node: ir.Node, kept: set[ir.Node], readers: Readers, reads_codes: Callable[[ir.Node, int], bool]
) -> bool:
    pending = list(node.outputs)
    while pending:
        for reader, index in readers.get(pending.pop(), ()):
            if reader in kept or reads_codes(reader, index):
                return True
            if index == 0 and (operators.is_data_movement(reader) or operators.is_rectifier(reader)):
                pending.extend(reader.outputs)
    return False
