"""Which arithmetic between layers runs on integer codes.

An integer kernel of an Add or a Concat saves time where codes are there anyway: its inputs are written by
integer kernels, and its output is read by one. Elsewhere its quantizers are noise for nothing. So a node
runs on codes if

1. its inputs come, through nodes that move data and rectifiers, from a convolution with a quantized input,
   from other nodes that run on codes, or from the inputs of the graph. Of a Concat one input has to, and the
   graph's inputs do not count: pieces of a picture that are put side by side are one SpaceToDepth in float;
   an operand that is broadcast need not, it is small;
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
    sources = [_source(value) for value in _full_operands(node)]
    if node.op_type == "Concat":
        return any(_writes(source, kept, writes_codes) for source in sources)
    return bool(sources) and all(
        source.is_graph_input() or _writes(source, kept, writes_codes) for source in sources
    )


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


def _source(value: ir.Value) -> ir.Value:
    """The value before the nodes that move data and the rectifiers that a value comes through."""
    producer = value.producer()
    while producer is not None and (operators.is_data_movement(producer) or operators.is_rectifier(producer)):
        source = producer.inputs[0]
        assert source is not None
        value, producer = source, source.producer()
    return value


def _writes(value: ir.Value, kept: set[ir.Node], writes_codes: Callable[[ir.Node], bool]) -> bool:
    producer = value.producer()
    return producer is not None and (producer in kept or writes_codes(producer))


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
