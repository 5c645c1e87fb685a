"""Infer shapes from the inputs; what a file says of inner values and outputs is a claim, and forgotten."""

from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.graph.size_limits import check_shapes, has_long_ranges

__all__ = ["claim_output_shapes", "forget_claimed_shapes", "infer_shapes"]

_GIVE_SEQUENCES = {"SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence"}


def forget_claimed_shapes(model: ir.Model) -> dict[str, ir.Shape]:
    """Drop the shapes of all but inputs and initializers, in place.

    Args:
        model: Any model.

    Returns:
        What the file says of its outputs, by name.
    """
    claims = {value.name or "": value.shape for value in model.graph.outputs if value.shape is not None}
    _forget(model, foreign=True)
    return claims


def claim_output_shapes(model: ir.Model, claims: Mapping[str, ir.Shape]) -> None:
    """Give outputs back what the file said of them, in place, but for what inference contradicts.

    Args:
        model: A model whose shapes are inferred.
        claims: Shapes by name.
    """
    for value in model.graph.outputs:
        claim = claims.get(value.name or "")
        if claim is not None and not _contradict(value.shape, claim):
            value.shape = claim


def infer_shapes(model: ir.Model) -> None:
    """Infer shapes anew; values that are shapes themselves are followed once it is known how many there are.

    They are followed only where that may tell a size that is not known without.

    Args:
        model: Any model; changed in place. Operators of other domains keep the shapes that they have.

    Raises:
        ModelError: A tensor is larger than the memory.
    """
    _forget(model, foreign=False)
    common_passes.ShapeInferencePass(data_prop=False)(model)
    _type_sequences(model)
    check_shapes(model)
    if not _are_known(model) and not has_long_ranges(model):
        common_passes.ShapeInferencePass()(model)
        _type_sequences(model)


def _are_known(model: ir.Model) -> bool:
    """Whether every value that a node computes has a shape of numbers and of names that inputs have."""
    known = {size for value in model.graph.inputs for size in value.shape or ()} - {ir.SymbolicDim(None)}
    return all(
        value.shape is not None and all(isinstance(size, int) or size in known for size in value.shape)
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        for value in node.outputs
    )


def _type_sequences(model: ir.Model) -> None:
    """Make sequences of what onnx-ir, which copies types of elements alone, has made tensors."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type in _GIVE_SEQUENCES and node.domain == "":
            value = node.outputs[0]
            if isinstance(value.type, ir.TensorType):
                value.type = ir.SequenceType(value.type)


def _forget(model: ir.Model, *, foreign: bool) -> None:
    """Drop the shapes of what nodes compute: inference keeps a shape that is there, and fills its gaps."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if foreign or node.domain == "":
            for value in node.outputs:
                value.shape = None


def _contradict(inferred: ir.Shape | None, claim: ir.Shape) -> bool:
    if inferred is None:
        return False
    pairs = zip(inferred, claim, strict=False)
    return len(inferred) != len(claim) or any(
        isinstance(found, int) and isinstance(said, int) and found != said for found, said in pairs
    )
