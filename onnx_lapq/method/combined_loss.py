"""The loss of a run: what it sees of every output, in one number for each sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from onnx_lapq.common.arrays import AnyArray, FloatArray
from onnx_lapq.errors import ConfigError
from onnx_lapq.method.common_values import pooled
from onnx_lapq.method.losses import CustomLoss, OutputLoss, SampleLoss, custom_loss, output_losses
from onnx_lapq.method.masked_outputs import lowest_where_masked, unmasked
from onnx_lapq.method.parts import LossName, Part, choose_parts, part_of, span

__all__ = [
    "AUTO",
    "Loss",
    "Reference",
    "combine",
    "combine_blocks",
    "describe",
    "named_losses",
    "own_loss",
    "parts_for",
]

AUTO = "auto"
COMBINED: Literal["combined"] = "combined"
_CUSTOM = "custom"
_MOST_SAMPLES = 32
_NOTHING = 1e-12

_WORDS: Mapping[LossName, str] = {
    "kl": "KL",
    "soft-kl": "KL of softened scores",
    "binary-kl": "binary KL",
    "cross-entropy": "cross-entropy",
    "binary-cross-entropy": "binary cross-entropy",
    "mse": "squared error",
    "row-mse": "squared error by row",
    "direction": "direction and length",
}


@dataclass(frozen=True)
class Loss:
    """What a search minimises.

    Attributes:
        name: Of the loss where it is one, ``combined`` where it has several parts, ``custom`` for the
            caller's own.
        parts: What it sees; none of a function of the caller.
        by_sample: The loss itself.
        flat: What it is of outputs that say nothing of the input; None for a function of the caller.
    """

    name: str
    parts: tuple[Part, ...]
    by_sample: SampleLoss
    flat: float | None


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples of one shape are compared with.

    Attributes:
        outputs: Of the float network by name, [n, ...] each.
        labels: Of these samples, if there are any.
        mask: True or 1 where a position is no padding, [n, positions]; None where all are real.
    """

    outputs: Mapping[str, AnyArray]
    labels: AnyArray | None
    mask: AnyArray | None


def combine(
    parts: Sequence[Part],
    reference: Mapping[str, AnyArray],
    labels: AnyArray | None = None,
    mask: AnyArray | None = None,
) -> Loss:
    """Make the loss of a calibration set from its parts.

    A part alone is as its formula has it. Several are each divided by what they are of outputs that say
    nothing of the input, and averaged: the loss is 1 where nothing is left of any of them.

    Args:
        parts: What it sees, at least one.
        reference: Outputs of the float network over the whole calibration set by name, [N, ...] each.
        labels: For the cross-entropies, see `output_loss`.
        mask: True or 1 where a position is no padding, [N, positions]; None where all are real.

    Raises:
        ConfigError: A loss is not known, or does not fit the output.
        CalibrationError: Labels are missing, of another shape, or outside the range of the classes.
    """
    (loss,) = combine_blocks(parts, [Reference(reference, labels, mask)])
    return loss


def combine_blocks(parts: Sequence[Part], blocks: Sequence[Reference]) -> list[Loss]:
    """Make the losses of samples of several shapes, see `combine`; every sample counts the same.

    Args:
        parts: What they see, at least one.
        blocks: The samples of each shape.

    Returns:
        A loss for each block.
    """
    lowest = {
        name: lowest_where_masked([block.outputs[name] for block in blocks]) for name in blocks[0].outputs
    }
    blocks = [replace(block, outputs=_unmasked(block.outputs, lowest)) for block in blocks]
    losses = [_of_part(part, blocks) for part in parts]
    flats = [
        _flat(part, [block.outputs[part.output] for block in blocks], of_part)
        for part, of_part in zip(parts, losses, strict=True)
    ]
    return [
        _of_masked(_combined(parts, list(block.outputs), of_block, flats), list(lowest.values()))
        for block, *of_block in zip(blocks, *losses, strict=True)
    ]


def _unmasked(outputs: Mapping[str, AnyArray], lowest: Mapping[str, float | None]) -> dict[str, AnyArray]:
    return {name: unmasked(values, lowest[name]) for name, values in outputs.items()}


def _of_masked(loss: Loss, lowest: Sequence[float | None]) -> Loss:
    """The loss of outputs that may hold minus infinity where the float network's do."""
    if all(value is None for value in lowest):
        return loss
    by_sample = loss.by_sample
    return replace(
        loss, by_sample=lambda outputs, samples: by_sample(list(map(unmasked, outputs, lowest)), samples)
    )


def _of_part(part: Part, blocks: Sequence[Reference]) -> list[OutputLoss]:
    """The losses of one part, for each block."""
    outputs = [block.outputs[part.output] for block in blocks]
    weights = [_weights(part, values, block.mask) for values, block in zip(outputs, blocks, strict=True)]
    return output_losses(part, outputs, [block.labels for block in blocks], weights)


def _combined(
    parts: Sequence[Part], names: list[str], losses: Sequence[OutputLoss], flats: Sequence[float]
) -> Loss:
    """The loss of one block, of outputs in the order of the names."""
    places = [names.index(part.output) for part in parts]
    if len(parts) == 1:
        alone, place = losses[0], places[0]
        return Loss(
            parts[0].loss, tuple(parts), lambda outputs, samples: alone(outputs[place], samples), flats[0]
        )
    scales = [flat if flat > _NOTHING else 1.0 for flat in flats]

    def by_sample(outputs: Sequence[AnyArray], samples: Any) -> FloatArray:
        shares = [
            loss(outputs[place], samples) / scale
            for loss, place, scale in zip(losses, places, scales, strict=True)
        ]
        mean: FloatArray = np.mean(shares, axis=0)
        return mean

    return Loss(COMBINED, tuple(parts), by_sample, 1.0)


def own_loss(function: CustomLoss, reference: Mapping[str, AnyArray], labels: AnyArray | None) -> Loss:
    """The loss that a function of the caller is."""
    return Loss(_CUSTOM, (), custom_loss(function, reference, labels), None)


def parts_for(
    option: str,
    reference: Mapping[str, AnyArray],
    ends: Mapping[str, frozenset[str]],
    labels: AnyArray | None = None,
    *,
    tokens: bool = False,
    soft: bool = False,
) -> tuple[Part, ...]:
    """What the loss looks at, by an option: ``auto``, one name for all outputs, or ``OUTPUT=NAME,...``.

    Args:
        option: See `named_losses`.
        reference: Outputs of the float network by name, [N, ...] each.
        ends: Their last operators by name.
        labels: Of the samples, if there are any.
        tokens: Whether the inputs have a padding mask.
        soft: What is chosen as "kl" becomes "soft-kl".

    Raises:
        ConfigError: The option names an output that is not there.
    """
    reference = _unmasked(reference, {name: lowest_where_masked([one]) for name, one in reference.items()})
    named = named_losses(option)
    if isinstance(named, str):
        return tuple(part_of(name, values, named) for name, values in reference.items())
    for name in named:
        if name not in reference:
            raise ConfigError(f"--loss names an output {name!r}; the outputs are {', '.join(reference)}")
    chosen = choose_parts(reference, ends, labels, tokens=tokens, soft=soft)
    others = [part for part in chosen if part.output not in named]
    return (*(part_of(name, reference[name], loss) for name, loss in named.items()), *others)


def named_losses(option: str) -> LossName | dict[str, LossName]:
    """The loss that an option names for all outputs, or those for some; none for ``auto``.

    Raises:
        ConfigError: It cannot be read.
    """
    if option == AUTO:
        return {}
    if "=" not in option:
        return _known(option)
    pairs = [item.rpartition("=") for item in option.split(",")]
    named = {output: _known(name) for output, _, name in pairs}
    if len(named) < len(pairs):
        raise ConfigError(f"the loss {option!r} names an output twice; give every output one name")
    return named


def describe(parts: Sequence[Part]) -> str:
    """What the loss sees, in words: "KL of `logits`; squared error by row of `boxes`"."""
    by_loss: dict[LossName, list[str]] = {}
    for part in parts:
        by_loss.setdefault(part.loss, []).append(f"`{part.output}`{span(part.rows)}")
    return "; ".join(f"{_WORDS[loss]} of {', '.join(seen)}" for loss, seen in by_loss.items()) or "your own"


def _known(name: str) -> LossName:
    known: dict[str, LossName] = {one: one for one in get_args(LossName)}
    if name in known:
        return known[name]
    choices = ", ".join((AUTO, *known))
    raise ConfigError(f"there is no loss {name!r}; give one of {choices}, or OUTPUT=NAME for some outputs")


def _weights(part: Part, values: AnyArray, mask: AnyArray | None) -> FloatArray | None:
    """Weights of the positions behind the samples, where these are the tokens of the mask."""
    if mask is None or values.shape[:2] != mask.shape or part.axis == 1:
        return None
    return mask.astype(np.float64)


def _flat(part: Part, blocks: Sequence[AnyArray], losses: Sequence[OutputLoss]) -> float:
    """The mean loss of outputs that are the mean of the float network's, the same for every sample."""
    mean = _mean(part.axis, blocks)
    starts = np.cumsum([0, *map(len, blocks)])
    found = []
    for at in range(0, starts[-1], -(-int(starts[-1]) // _MOST_SAMPLES)):
        block = int(np.searchsorted(starts, at, side="right")) - 1
        one = np.ascontiguousarray(np.broadcast_to(mean, (1, *blocks[block].shape[1:])))
        inside = at - int(starts[block])
        found.append(losses[block](one, slice(inside, inside + 1)))
    return float(np.concatenate(found).mean())


def _mean(axis: int | None, blocks: Sequence[AnyArray]) -> FloatArray:
    """The mean over samples and positions along an axis; of all values where blocks differ in that axis."""
    alike = axis is not None and len({values.shape[axis] for values in blocks}) == 1
    others = tuple(other for other in range(blocks[0].ndim) if not alike or other != axis)
    filled = [values for values in blocks if values.size] or blocks
    return pooled(filled, [values.mean(axis=others, keepdims=True, dtype=np.float64) for values in filled])
