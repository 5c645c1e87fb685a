"""What a person should know of a network before the search begins."""

from collections.abc import Iterator

import numpy as np

from onnx_lapq.graph.placement.sites import MANY_BITS
from onnx_lapq.network.bench import Bench
from onnx_lapq.runtime.providers import CPU, left_to_cpu
from onnx_lapq.runtime.session import open_session

__all__ = ["oddities"]

_TINY, _HUGE = 1e-20, 1e10


def oddities(bench: Bench) -> list[str]:
    """A sentence for every weight that is zero, tiny or huge, and every activation that never changes.

    And one where no layer has the bits asked for, and one for the nodes of the quantized network that the
    execution provider leaves to the CPU.
    """
    odd = (*_odd_weights(bench), *_constant_activations(bench))
    return [*_no_layer_as_asked(bench), *_left_to_the_cpu(bench), *odd]


def _no_layer_as_asked(bench: Bench) -> Iterator[str]:
    config, placement = bench.config, bench.network.placement
    asked, given = config.weight_bits, {site.bits for site in placement.weights}
    if config.first_last == "8" and asked < MANY_BITS and given and not config.bits and min(given) > asked:
        yield (
            f"no layer has weights of the {asked} bits asked for: all of them are first or last ones, which "
            "have 8; --first-last same gives them as many as the others"
        )


def _left_to_the_cpu(bench: Bench) -> Iterator[str]:
    if bench.config.provider != CPU:
        quantized = bench.network.written(bench.network.point(bench.layerwise.minmax()))
        left = left_to_cpu(open_session(quantized, provider=bench.config.provider))
        if left is not None:
            yield left


def _odd_weights(bench: Bench) -> Iterator[str]:
    for name, layer in bench.network.layers.items():
        peak = float(np.abs(layer.values).max(initial=0))
        dead = int((np.abs(layer.rows(layer.values)).max(axis=1, initial=0) == 0).sum())
        if peak == 0:
            yield f"weight {name!r} is zero everywhere, so its scale does not matter"
        elif not _TINY < peak < _HUGE:
            yield f"weight {name!r} goes up to {peak:.3g}; check that the model is trained and whole"
        elif dead:
            yield f"weight {name!r} is zero in {dead} of its {len(layer.rows(layer.values))} output channels"


def _constant_activations(bench: Bench) -> Iterator[str]:
    for site in bench.network.placement.activations:
        histogram = bench.captured.histograms[site.value]
        if histogram.minimum == histogram.maximum:
            yield f"activation {site.value!r} is {histogram.minimum:.3g} on all samples"
