"""Options of a run."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, Self, get_args

from msgspec import Meta

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.common.records import check
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.options import (
    ACTIVATION_BITS,
    BLOCK_BITS,
    FLOAT_BITS,
    GLUE_BITS,
    WIDE_BITS,
    PlacementOptions,
    parse_bits_rule,
)
from onnx_lapq.graph.placement.targets import TARGETS, Target, TargetName
from onnx_lapq.method.combined_loss import named_losses
from onnx_lapq.method.parts import LossName
from onnx_lapq.runtime.providers import CPU, find_provider
from onnx_lapq.runtime.saturation import has_vnni

__all__ = ["MethodName", "QuantizationConfig"]

MethodName = Literal["lapq", "minmax", "percentile", "mmse", "kld", "aciq", "lp", "random"]
AUTO_BITS = "auto"
"""Among the rules for bits: choose them by measurement."""

_Loss = Annotated[
    str, Meta(description=f"one of auto, {', '.join(get_args(LossName))}, or OUTPUT=NAME for some outputs")
]
_PACKED_BITS = 4
"""Codes of more take a byte however they are stored."""

_Bits = Annotated[int, Meta(ge=2, le=FLOAT_BITS, description=f"2 to 8, or {FLOAT_BITS} for float")]
_ActivationBits = Annotated[
    int, Meta(ge=2, le=FLOAT_BITS, description=f"2 to 8, {WIDE_BITS}, or {FLOAT_BITS} for float")
]
_Count = Annotated[int, Meta(ge=1, description="an integer above 0")]
_Above0 = Annotated[float, Meta(gt=0, description="a number above 0")]


@dataclass(frozen=True)
class QuantizationConfig:
    """Everything that decides what a run writes, apart from the model and the samples.

    The first sentence on an option is what the help of the command line says of it.

    Attributes:
        weight_bits: 2 to 8, or 32 for float.
        activation_bits: 2 to 8, 16, or 32 for float.
        per_channel: One weight scale per output channel, or row of an embedding table, or one per tensor.
            None is what suits the placement: per channel in ``integer``, per tensor in ``paper``.
        group_size: Weights that share a scale, along the inputs of MatMul and Gemm: 32, 64 or 128. It is for
            weights of 4 bits and fewer and float activations (``-a 32``); onnxruntime then runs these layers
            as MatMulNBits. Weights in groups are stored as INT4, two to a byte, whatever ``storage`` says.
        placement: Where quantizers stand. ``integer`` is for graphs that run on integers end to end,
            ``paper`` for the paper's tables: weights and the outputs of ReLU only.
        first_last: Bits of the first and last layers. ``same`` gives them the bits of the others.
        target: The runtime that the model is for. The table of targets says what each of them takes.
        full_range: Use all codes of 8-bit weights on ``ort-x86``, also where two large ones meet. Where this
            processor has VNNI that is target ``ort-x86-vnni``, for processors like it; elsewhere kernels are
            slower.
        fold_codes: Take weights that are stored as integer codes for float ones. Without it a model that
            holds codes is refused, since it is quantized already.
        storage: How low-bit weights are stored. ``int8`` takes a byte for each of them, ``packed`` puts two
            of 4 bits or four of 2 bits into a byte.
        include: Quantize only these nodes (globs on names) or operators. Empty means all that can be.
        exclude: Leave these nodes (globs on names) or operators in float.
        op_types: Quantize only these operators, such as ``Conv`` and ``Gemm``. Empty means all that can be.
        float_outputs: Leave outputs that a convolution writes in float. By default they have 8 bits, so that
            the convolution runs on integers.
        bits: ``PATTERN=BITS`` for some layers, as ``Gemm=w4a8``, or ``auto``. A pattern is a glob on names,
            or an operator; BITS are as in ``8``, ``w4``, ``a16`` or ``w4a8``; the last pattern that matches
            holds. ``auto`` takes bits from the weights that matter least, until a bound on the loss;
            ``weight_bits`` is then the most that a weight gets, and ``storage`` is ``packed``.
        size_budget: Share of the float file; bits of weights are chosen to fit. The weights that matter least
            get fewer bits first; ``weight_bits`` is the most that a weight gets, and ``storage`` is
            ``packed``.
        method: How step sizes are chosen. ``lapq`` is the method of this package, the others are baselines.
        p: Exponent of the L_p error, for method ``lp``.
        percentile: Per cent of the values left unclipped, for method ``percentile``.
        seed: Decides the step sizes of method ``random``.
        transform: Split outlier channels (``ocs``), or make weights sums of two (``dual``). Either is for
            weights of low bits and comes before everything else; ``dual`` takes the worst tensors.
        loss: What the search minimises, chosen by looking at the outputs. ``auto`` needs no labels; NAME is
            for all outputs, ``OUTPUT=NAME,...`` for some. Names are ``kl``, ``soft-kl``, ``binary-kl``,
            ``cross-entropy``, ``binary-cross-entropy``, ``mse``, ``row-mse`` and ``direction``.
        p_values: The p of the L_p errors that are tried. Three or more, ascending. If none are given: 4 from
            2 to 4, 6 with nearest rounding; where no tensor has fewer than 7 bits 2 alone, and 4 with nearest
            rounding.
        optimizer: The joint step. ``powell`` is ours, ``scipy-powell`` the authors', and ``auto`` is
            ``powell`` for method ``lapq`` where a tensor has fewer than 7 bits, else ``none``.
        max_evaluations: Most loss evaluations of the joint step.
        max_minutes: Most minutes of the run, spent where they pay most. A start comes first, then rounding,
            then the joint step; the file is then written, which takes a little longer. With ``resume``, 0
            writes the best so far.
        guard: Share of the samples that only guards against overfitting, 0 to 0.5.
        equalize: Even out the channels between layers first. Worth a try around depthwise convolutions where
            weights have one scale per tensor.
        move_scales: Move outlier channels of the inputs of layers into the weights, those in front of a
            gate into the gate, and those in front of an activation function into a Mul. It is done where it
            lowers the error behind them, with method ``lapq`` and placement ``integer``.
        rounding: How weights are rounded. With ``compensated`` each weight makes up for the errors of others;
            ``auto`` is ``compensated`` for method ``lapq`` and ``nearest`` for the others.
        bias_correction: Move the mean shift of quantized weights into the bias.
        preprocessing: From decoded images to what the model takes.
        samples: Most samples that are used. None takes all.
        batch_axis: ``INPUT=AXIS`` for an input whose samples do not lie along the first axis; the flag may be
            repeated. An example is
            ``state=1`` for a state ``[2, batch, 128]``; ``INPUT=none`` is for an input of one value for all
            samples of a run. What the shapes of the inputs tell need not be given.
        set: ``INPUT=NUMBER`` for an input that always has this number, as ``sr=16000``; the flag may be
            repeated. The graph is
            simplified for it, control flow too, and samples need not hold it. The written model keeps the
            input and does not read it.
        workers: Number of threads, or of Ray actors. None means one per core.
        executor: What evaluates the loss. ``local`` is threads, ``ray`` is actors of a Ray cluster with a
            part of the samples each (extra ``ray``).
        provider: Execution provider of onnxruntime, such as ``CUDA``. The CPU runs the nodes that it does
            not.
        memory: Bytes that remembered codes may take.
        resume: Go on where an interrupted run to the same output was.
        verify: Deliver only what plain onnxruntime runs as the search did. The written file is run on a batch
            of samples.
        report: Also write ``OUT.report.html``, the run for a person to look at. What it shows beyond the
            record costs a few runs of the network for each quantizer (extra ``report``).

    Raises:
        ConfigError: A value makes no sense; the message names the option and says what it takes.
    """

    weight_bits: _Bits = 8
    activation_bits: _ActivationBits = 8
    per_channel: bool | None = None
    group_size: Annotated[int, Meta(description="32, 64 or 128")] | None = None
    placement: Literal["integer", "paper"] = "integer"
    first_last: Literal["8", "float", "same"] = "8"
    target: TargetName = "ort-x86"
    full_range: bool = False
    fold_codes: bool = False
    storage: Literal["int8", "packed"] = "int8"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()
    float_outputs: bool = False
    bits: tuple[str, ...] = ()
    size_budget: Annotated[float, Meta(gt=0, le=1, description="a share above 0, at most 1")] | None = None
    method: MethodName = "lapq"
    p: _Above0 = 2.5
    percentile: Annotated[float, Meta(gt=0, le=100, description="a number above 0, at most 100")] = 99.99
    seed: Annotated[int, Meta(ge=0, description="an integer from 0 on")] = 0
    transform: Literal["none", "ocs", "dual"] = "none"
    loss: _Loss = "auto"
    p_values: tuple[Annotated[float, Meta(ge=1, description="a number from 1 on")], ...] = ()
    optimizer: Literal["auto", "powell", "scipy-powell", "none"] = "auto"
    max_evaluations: _Count | None = None
    max_minutes: Annotated[float, Meta(ge=0, description="a number from 0 on")] | None = None
    guard: Annotated[float, Meta(ge=0, le=0.5, description="a share from 0 to 0.5")] = 0.2
    equalize: bool = False
    move_scales: bool = True
    rounding: Literal["auto", "compensated", "nearest"] = "auto"
    bias_correction: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    samples: _Count | None = None
    batch_axis: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    workers: _Count | None = None
    executor: Literal["local", "ray"] = "local"
    provider: str = CPU
    memory: Annotated[int, Meta(ge=0, description="a number of bytes")] = 160 << 20
    resume: bool = False
    verify: bool = True
    report: bool = False

    def __post_init__(self) -> None:
        check(self)
        if 8 < self.weight_bits < FLOAT_BITS:
            raise ConfigError(f"weight_bits is {self.weight_bits}; give 2 to 8, or {FLOAT_BITS} for float")
        if self.activation_bits not in ACTIVATION_BITS:
            raise ConfigError(
                f"activation_bits is {self.activation_bits}; give 2 to 8, {WIDE_BITS}, or {FLOAT_BITS} for "
                "float"
            )
        if self.weight_bits == self.activation_bits == FLOAT_BITS:
            raise ConfigError("weight_bits and activation_bits are both 32; nothing is left to quantize")
        if 0 < len(self.p_values) < 3 or list(self.p_values) != sorted(set(self.p_values)):
            raise ConfigError(f"p_values is {self.p_values}; give three or more that ascend")
        if self.weight_bits == FLOAT_BITS and self.chooses_bits:
            option = "--bits auto" if self.size_budget is None else "size_budget"
            raise ConfigError(
                f"{option} chooses bits of weights, but weight_bits is {FLOAT_BITS}, which leaves them in "
                "float; give weight_bits from 2 to 8"
            )
        self._check_groups()
        named_losses(self.loss)
        find_provider(self.provider)
        self.feeding()
        self.runtime().check(self._activation_widths(), "packed" if self.chooses_bits else self.storage)

    def resolved(self) -> Self:
        """The same options, with what ``auto`` stands for, and the provider by its full name.

        An optimizer that stays ``auto`` depends on the bits of the tensors. All 8 bits of weights are for a
        target of their own where this processor can use it.
        """
        optimizer, rounding = self.optimizer, self.rounding
        if optimizer == "auto" and self.method != "lapq":
            optimizer = "none"
        if rounding == "auto":
            rounding = "compensated" if self.method == "lapq" else "nearest"
        storage = "packed" if self.chooses_bits else self.storage
        target = self.target
        if self.full_range and target == "ort-x86" and has_vnni():
            target = "ort-x86-vnni"
        return replace(
            self,
            optimizer=optimizer,
            rounding=rounding,
            storage=storage,
            target=target,
            provider=find_provider(self.provider),
        )

    @property
    def chooses_bits(self) -> bool:
        """Whether the run chooses the bits of every weight."""
        return self.size_budget is not None or AUTO_BITS in self.bits

    @property
    def _is_for_speed(self) -> bool:
        """Whether a layer that is quicker in float is better there: fewer bits are for size, or for study."""
        is_plain = self.weight_bits == self.activation_bits == GLUE_BITS and not self.chooses_bits
        return is_plain and self.placement == "integer"

    @property
    def moves_scales(self) -> bool:
        """Whether outlier channels of activations move into weights."""
        return self.move_scales and self.method == "lapq" and self.placement == "integer"

    @property
    def threads(self) -> int:
        """The number of threads that ``workers`` stands for."""
        return self.workers or os.cpu_count() or 1

    def deciding(self) -> dict[str, Any]:
        """The options that decide what is written; threads, memory, interruptions and the page do not."""
        others = ("workers", "executor", "memory", "resume", "report", "verify")
        return {name: value for name, value in asdict(self).items() if name not in others}

    def feeding(self) -> Feeding:
        """What is said of inputs that are not a batch along their first axis.

        Raises:
            ConfigError: An item of ``batch_axis`` or ``set`` cannot be read.
        """
        return Feeding.parse(self.batch_axis, self.set)

    def least_opset(self) -> int:
        """The opset that the prepared model is to have at least."""
        return self.runtime().least_opset(self._activation_widths(), in_groups=self.group_size is not None)

    def _check_groups(self) -> None:
        """Refuse groups of weights where nothing multiplies by them, or slowly."""
        if self.group_size is None:
            return
        if self.group_size not in (32, 64, 128):
            raise ConfigError(f"group_size is {self.group_size}; give 32, 64 or 128")
        if not self.runtime().takes_groups:
            raise ConfigError(f"target {self.target} does not take weights in groups; leave group_size out")
        if self.activation_bits != FLOAT_BITS:
            raise ConfigError(
                f"group_size is for float activations, since integer kernels take one scale per channel, but "
                f"activation_bits is {self.activation_bits}; give -a {FLOAT_BITS}, or leave group_size out"
            )
        if self.weight_bits > BLOCK_BITS and not self.bits:
            raise ConfigError(
                f"group_size is for weights of {BLOCK_BITS} bits and fewer, but weight_bits is "
                f"{self.weight_bits}; give -w {BLOCK_BITS}, or leave group_size out"
            )
        if self.per_channel is False:
            raise ConfigError(
                "group_size splits channels, and --per-tensor joins them; leave one of them out"
            )
        if self.chooses_bits:
            raise ConfigError(
                "group_size does not go with bits that the run chooses; leave it out, or give -w instead"
            )

    def _activation_widths(self) -> frozenset[int]:
        rules = [rule.activations for rule in self.placement_options().bits]
        return frozenset([self.activation_bits, *(bits for bits in rules if bits is not None)])

    def runtime(self) -> Target:
        """What the target demands."""
        target = TARGETS[self.target]
        return target.at_full_range() if self.full_range else target

    def notes(self, weight_bits: Collection[int], activation_bits: Collection[int]) -> Iterator[str]:
        """What the target makes of the options, as far as a user should know of it.

        Args:
            weight_bits: Of the quantizers on weights.
            activation_bits: Of those on activations.
        """
        target = TARGETS[self.target]
        if self.full_range and not target.for_vnni and target.at_full_range() == target:
            yield f"--full-range changes nothing: on target {target.name} 8-bit weights take all codes"
        fewest = min(weight_bits, default=FLOAT_BITS)
        if fewest <= _PACKED_BITS and self.storage == "int8" and target.packed and not self.group_size:
            yield (
                f"weights of {fewest} bits take a byte each in the file; --storage packed stores "
                f"{'four' if fewest == 2 else 'two'} in one"
            )
        yield from self.runtime().notes(weight_bits, activation_bits)

    def placement_options(self, chosen: Mapping[str, int] | None = None) -> PlacementOptions:
        """The part that decides which tensors get a quantizer.

        Args:
            chosen: Bits of single weights by initializer name, which hold before all options.

        Raises:
            ConfigError: An item of ``bits`` cannot be read.
        """
        return PlacementOptions(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            per_channel=self.placement == "integer" if self.per_channel is None else self.per_channel,
            first_last=self.first_last,
            policy=self.placement,
            include=self.include,
            exclude=self.exclude,
            op_types=self.op_types,
            bits=tuple(parse_bits_rule(text) for text in self.bits if text != AUTO_BITS),
            adds_pairs=self.runtime().adds_pairs,
            rescales=self.runtime().is_onnxruntime,
            float_products=self.runtime().float_products,
            float_narrow=self.runtime().float_narrow and self._is_for_speed,
            float_outputs=self.float_outputs,
            group_size=self.group_size or 0,
            chosen=chosen or {},
        )
