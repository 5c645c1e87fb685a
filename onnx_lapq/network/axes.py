"""Along which axis of each input the samples lie.

Mostly that is the first one. Where it is not, as in a recurrent state ``[2, batch, 128]``, names and sizes of
the inputs' axes tell: the one that most inputs share is the batch. An LSTM, GRU or RNN that has
time first tells it of what it reads. Where that leaves a choice, the user is asked.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.calibration.stored import InputSpec
from onnx_lapq.errors import ConfigError, ModelError

__all__ = ["batch_axes", "recurrent_inputs"]

_BATCH_NAMES = frozenset({"batch", "batch_size", "batchsize"})

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_TIME_FIRST = frozenset({0, 5, 6})
"""Inputs of these operators that have the batch as their second axis: the sequence and the first states."""
_KEEP_AXES = frozenset({"Cast", "Dropout", "Identity"})

Size = int | str
Shape = Sequence[Size | None]


def recurrent_inputs(graph: ir.Graph) -> set[str]:
    """Inputs that an LSTM, GRU or RNN reads with time first, so that the batch is their second axis."""
    return {value.name or "" for value in graph.inputs if _is_read_time_first(value)}


def _is_read_time_first(value: ir.Value) -> bool:
    return any(
        (node.op_type in _RECURRENT and at in _TIME_FIRST and not node.attributes.get_int("layout", 0))
        or (node.op_type in _KEEP_AXES and at == 0 and _is_read_time_first(node.outputs[0]))
        for node, at in value.uses()
    )


def batch_axes(
    inputs: Sequence[InputSpec],
    given: Mapping[str, int | None],
    recurrent: Set[str] = frozenset(),
    outputs: Sequence[Shape] = (),
) -> dict[str, int | None]:
    """The axis of the samples of each input.

    Args:
        inputs: The model's inputs; of them only names and shapes are looked at.
        given: What the user says.
        recurrent: What `recurrent_inputs` says.
        outputs: Shapes of the model's outputs.

    Raises:
        ConfigError: An axis is given that an input does not have.
        ModelError: Names and sizes leave a choice.
    """
    axes: dict[str, int | None] = {}
    for spec in inputs:
        axis = given.get(spec.name)
        if axis is not None and axis >= len(spec.shape):
            raise ConfigError(
                f"batch_axis of input {spec} is {axis}; give 0 to {len(spec.shape) - 1}, or none"
            )
        if spec.name in given or not spec.shape:
            axes[spec.name] = axis
        elif spec.name in recurrent and _has_time_first(spec, inputs, given):
            axes[spec.name] = 1
    others = [spec for spec in inputs if spec.name not in axes]
    told = {spec.shape[axis] for spec in inputs if (axis := axes.get(spec.name)) is not None} - {None}
    keys = _Keys(told) if told else _keys(others)
    for spec in others:
        places = {_place(spec, key, keys.certain, inputs) for key in keys.sizes} or {0}
        place = None if len(places) > 1 else places.pop()
        if place is None or (not told and _outputs_say_otherwise(spec, place, outputs)):
            raise _unclear(spec, inputs, given)
        axes[spec.name] = place
    return {spec.name: axes[spec.name] for spec in inputs}


def _has_time_first(spec: InputSpec, inputs: Sequence[InputSpec], given: Mapping[str, int | None]) -> bool:
    """Whether the shape of a recurrent layer's input bears out that its second axis is the batch.

    Raises:
        ModelError: The first axis is open, as the batch mostly is, and the second is some number.
    """
    first, second = spec.shape[:2]
    if _is_batch(first) or first == second == 1:
        return False
    if isinstance(second, int) and second > 1:
        if not isinstance(first, int):
            raise _unclear(spec, inputs, given)
        return first > 1
    return True


def _is_batch(size: Size | None) -> bool:
    return isinstance(size, str) and size.lower() in _BATCH_NAMES


def _outputs_say_otherwise(spec: InputSpec, axis: int, outputs: Sequence[Shape]) -> bool:
    """Whether the outputs begin with another name of an input, and have nothing of the one it goes by."""
    if not isinstance(spec.shape[axis], str) or _is_batch(spec.shape[axis]):
        return False
    found = {size for shape in outputs for size in shape}
    firsts = {shape[0] for shape in outputs if shape and isinstance(shape[0], str)}
    return spec.shape[axis] not in found and not firsts.isdisjoint(spec.shape)


@dataclass(frozen=True)
class _Keys:
    """Names and sizes that the batch may have; certain where the user or a name says so."""

    sizes: Set[Size | None]
    certain: bool = True


def _keys(inputs: Sequence[InputSpec]) -> _Keys:
    """A name that says what it is, or what stands first in an input and is found in the most of them."""
    sizes = {size for spec in inputs for size in spec.shape}
    named = {size for size in sizes if _is_batch(size)}
    if len(named) == 1:
        return _Keys(named)
    firsts = {spec.shape[0] for spec in inputs}
    if not all(
        isinstance(size, int) for size in firsts
    ):  # beside an open one, a number is a size like others
        firsts = {size for size in firsts if size == 1 or not isinstance(size, int)}
    firsts = firsts - {None} or firsts
    shared = {key: sum(key in spec.shape for spec in inputs) for key in firsts}
    most = {key for key in firsts if shared[key] == max(shared.values())}
    first_in_all = {key for key in most if all(spec.shape[0] == key for spec in inputs)}
    return _Keys(first_in_all or most, certain=False)


def _place(spec: InputSpec, key: Size | None, certain: bool, inputs: Sequence[InputSpec]) -> int | None:
    """Where an input has the batch, if it goes by this name or size; None where that is not clear."""
    first = spec.shape[0]
    places = [axis for axis, size in enumerate(spec.shape) if size == key]
    if first == key:
        return 0
    if places:  # a name that stands first may be that of the batch as well, a number other than 1 is not
        return places[0] if len(places) == 1 and (certain or not isinstance(first, str)) else None
    if isinstance(first, int):
        return 0 if first == 1 else None
    elsewhere = any(first in other.shape[1:] for other in inputs if first is not None)
    return None if elsewhere else 0


def _unclear(spec: InputSpec, inputs: Sequence[InputSpec], given: Mapping[str, int | None]) -> ModelError:
    beside = ", ".join(str(other) for other in inputs if other is not spec) or "no other input"
    said = ", ".join(f"{name}={axis}" for name, axis in given.items() if axis is not None)
    correct = f"correct --batch-axis {said} if it is wrong, or else " if said else ""
    return ModelError(
        f"input {spec}: it is not clear which axis is that of the samples, beside {beside}; {correct}give it "
        f"with --batch-axis {spec.name}=AXIS, or {spec.name}=none where one value holds for all samples"
    )
