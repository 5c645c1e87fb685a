"""A model and samples, ready for one run or several, and the first steps of a run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import onnx_ir as ir

from onnx_lapq.calibration.request import Feeding
from onnx_lapq.calibration.samples import Samples, SampleSource
from onnx_lapq.common.extras import require_extra
from onnx_lapq.common.limits import require_room
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.evaluation.fidelity import check_prepared
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.graph.placement.layer_bits import check_patterns
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.turned_weights import turn_weights
from onnx_lapq.graph.saving import ModelRecord, describe_model
from onnx_lapq.graph.simplify.lowest_opset import use_lowest_opset
from onnx_lapq.graph.simplify.opsets import raise_opset
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.method.losses import CustomLoss
from onnx_lapq.network.batching import fixed_batch
from onnx_lapq.network.bench import Bench, set_up
from onnx_lapq.network.samples import check_feeding, describe_samples, read_samples
from onnx_lapq.progress import Clock
from onnx_lapq.stages.bits import choose_bits, chosen_bits
from onnx_lapq.stages.found import Found, Save
from onnx_lapq.stages.rewriting.activation_scales import inputs_of_layers
from onnx_lapq.stages.rewriting.channel_clips import clipped_values
from onnx_lapq.stages.rewriting.equalization import equalize
from onnx_lapq.stages.rewriting.gate_scales import values_of_gates
from onnx_lapq.stages.rewriting.observing import scale_channels
from onnx_lapq.stages.rewriting.output_scales import outputs_of_layers
from onnx_lapq.stages.rewriting.swish_scales import values_of_swishes
from onnx_lapq.stages.rewriting.transforms import transform_weights
from onnx_lapq.stages.state_file import refuse_foreign

__all__ = ["Job", "checked", "open_job", "set_up_run"]


@dataclass(frozen=True)
class Job:
    """A model and samples, ready for a run.

    Attributes:
        model: The model as the user gave it.
        source: What is on record of it.
        prepared: The prepared float model; a run changes it.
        samples: The calibration set.
        about_samples: What is on record of them.
        warnings: What a person should know of both.
        loss: The caller's own, if any.
        clock: Told of the phases.
    """

    model: ModelSource
    source: ModelRecord
    prepared: ir.Model
    samples: Samples
    about_samples: dict[str, Any]
    warnings: tuple[str, ...]
    loss: CustomLoss | None
    clock: Clock

    def again(self, least_opset: int) -> Self:
        """The same with a prepared model of its own, for one of several runs.

        Args:
            least_opset: What the bits of this run need; the model is raised to it.

        Raises:
            ModelError: It cannot be converted.
        """
        prepared = self.prepared.clone()
        raise_opset(prepared, least_opset)
        use_lowest_opset(prepared, least_opset)
        return replace(self, prepared=prepared)


def checked(
    config: QuantizationConfig, loss: CustomLoss | None = None, state: Path | None = None
) -> QuantizationConfig:
    """The options with what ``auto`` stands for, once all that the run needs is there.

    Raises:
        InputError: An option is no good, or the state file is something else.
    """
    if not isinstance(config, QuantizationConfig):
        raise ConfigError(f"config is of type {type(config).__name__}; give a QuantizationConfig")
    if loss is not None and config.loss != "auto":
        raise ConfigError(f"config.loss is {config.loss!r} and a loss function is given; give one of them")
    require_room()
    if state is not None and not config.resume:
        refuse_foreign(state)
    if config.report:
        require_extra("report", "matplotlib", "jinja2")
    if config.executor == "ray":
        require_extra("ray", "ray")
    return config.resolved()


def open_job(
    model: ModelSource,
    calibration: SampleSource,
    config: QuantizationConfig,
    clock: Clock,
    loss: CustomLoss | None = None,
) -> Job:
    """Prepare a model, and read samples for it.

    Args:
        model: The float model.
        calibration: The samples.
        config: Options, resolved.
        clock: Told of the phases.
        loss: The caller's own, instead of ``config.loss``.

    Raises:
        InputError: The model, the samples or an option is no good.
        RunError: The prepared model computes something else than the given one.
    """
    feeding = config.feeding()
    with clock.phase("prepare"):
        prepared, source = _prepared(model, config, feeding), describe_model(model)
        check_patterns(prepared, config.placement_options())
        place(prepared, config.placement_options())
    with clock.phase("samples") as tick:
        samples = read_samples(prepared, calibration, config.preprocessing, config.samples, tick, feeding)
        about_samples, warnings = describe_samples(samples)
    if config.verify:
        warnings += check_prepared(model, prepared, samples, fixed_batch(prepared, samples))
    return Job(model, source, prepared, samples, about_samples, tuple(warnings), loss, clock)


def set_up_run(job: Job, config: QuantizationConfig, found: Found, save: Save) -> tuple[Bench, Found]:
    """Rewrite the prepared model as the options ask, choose bits, and put the network on the bench.

    Args:
        job: The model, which changes in place, and the samples.
        config: Options, resolved.
        found: What an interrupted run has found, or nothing yet.
        save: Told of what is found.

    Returns:
        The bench, and what is found.
    """
    prepared, samples, clock, placement = job.prepared, job.samples, job.clock, None
    if config.equalize:
        with clock.phase("equalize"):
            equalize(prepared, samples, config)
    if config.moves_scales:
        with clock.phase("scales"):
            placement = place(prepared, config.placement_options())
            candidates = [
                *clipped_values(prepared, placement),
                *inputs_of_layers(prepared, placement, samples),
                *values_of_gates(prepared, placement),
                *values_of_swishes(prepared, placement, samples),
                *outputs_of_layers(prepared, placement),
            ]
            if scale_channels(prepared, samples, config, candidates):
                placement = None  # of the network as it was
    found = choose_bits(prepared, samples, config, job.source.bytes, clock, found, job.loss)
    if config.chooses_bits:
        save(found)
    options = config.placement_options(chosen_bits(found))
    if placement is None or config.chooses_bits:
        placement = place(prepared, options)
    placement = transform_weights(prepared, placement, config.transform, options)
    return set_up(prepared, placement, samples, config, clock, job.loss, found.evaluations), found


def _prepared(model: ModelSource, config: QuantizationConfig, feeding: Feeding) -> ir.Model:
    loaded = load(model)
    check_feeding(loaded, feeding)
    prepared = prepare(
        loaded, fold_codes=config.fold_codes, values=feeding.values, least_opset=config.least_opset()
    )
    if config.group_size is not None:
        turn_weights(prepared)
    return prepared
