"""Bits per layer: a ladder from the widest weights down, cheapest loss per byte first.

The loss that a layer adds at fewer bits is measured with all others at the widest. Losses of layers are
taken to add up, which makes the choice a knapsack. The ladder is its greedy solution: the steps of every
layer follow the lower convex hull of its loss over its bytes, so a width that costs more for each byte than
the next one is skipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Choice", "Rung", "ladder"]


@dataclass(frozen=True)
class Choice:
    """What a layer costs at a bit width: its bytes, and the loss that it adds to the network."""

    bytes: int
    loss: float


@dataclass(frozen=True)
class Rung:
    """A step down the ladder.

    Attributes:
        layer: The layer that loses bits.
        before: Its bits so far.
        after: Its bits from here on.
        saved: Bytes that this saves.
        added: Loss that this adds.
        loss: Loss that all steps so far have added.
    """

    layer: str
    before: int
    after: int
    saved: int
    added: float
    loss: float


def ladder(choices: Mapping[str, Mapping[int, Choice]]) -> Iterator[Rung]:
    """All steps from the widest to the narrowest weights, cheapest first.

    Args:
        choices: Of every layer by bits. A width that saves nothing beside a wider one is never taken.
    """
    bits = {layer: max(widths) for layer, widths in choices.items()}
    total = 0.0
    while steps := [
        (_price(widths[bits[layer]], narrow), layer, width)
        for layer, widths in choices.items()
        for width, narrow in widths.items()
        if width < bits[layer] and narrow.bytes < widths[bits[layer]].bytes
    ]:
        _, layer, width = min(steps, key=lambda step: (step[0], -step[2]))
        before, after = choices[layer][bits[layer]], choices[layer][width]
        total += after.loss - before.loss
        yield Rung(layer, bits[layer], width, before.bytes - after.bytes, after.loss - before.loss, total)
        bits[layer] = width


def _price(wide: Choice, narrow: Choice) -> float:
    """Loss per byte saved; what adds no loss is had in the order of the bytes that it saves."""
    saved = wide.bytes - narrow.bytes
    added = narrow.loss - wide.loss
    return added / saved if added > 0 else -float(saved)
