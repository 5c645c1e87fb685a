"""The stages of a run, in order; each has the shape ``(Bench, Found, save) -> Found``."""

from onnx_lapq.network.bench import Bench
from onnx_lapq.stages.biases import correct_biases
from onnx_lapq.stages.found import Found, Save
from onnx_lapq.stages.joint import search_jointly
from onnx_lapq.stages.rounding import round_weights
from onnx_lapq.stages.start import find_start

__all__ = ["STAGES", "run_stages"]

STAGES = (find_start, round_weights, search_jointly, correct_biases)


def run_stages(bench: Bench, found: Found, save: Save) -> Found:
    """Find step sizes, round, move all step sizes together, and correct biases.

    The first two stages skip what was found before; the joint step goes on from its saved state, and biases
    are corrected again. An interrupt passes through all of them: what was saved last is what
    a resumed run goes on from. What is found once time is up is not saved, since a resumed run may have more.

    Args:
        bench: The network, calibrated.
        found: What an interrupted run has found, or nothing yet.
        save: Told of what is found, as soon as it is.

    Raises:
        RunError: Onnxruntime failed.
    """

    def save_in_time(found: Found) -> None:
        if not bench.out_of_time():
            save(found)

    for stage in STAGES:
        found = stage(bench, found, save_in_time)
    return found
