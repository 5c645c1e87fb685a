"""Options of a run."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.common.kinds import check_kinds
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.options import FLOAT_BITS, PlacementOptions, parse_bits_rule
from onnx_lapq.graph.placement.targets import TARGETS, Target, TargetName
from onnx_lapq.method.losses import LossName
from onnx_lapq.runtime.providers import CPU, find_provider

__all__ = ["LossChoice", "MethodName", "QuantizationConfig"]

MethodName = Literal["lapq", "minmax", "percentile", "mmse", "kld", "aciq", "lp", "random"]
AUTO_BITS = "auto"
"""Among the rules for bits: choose them by measurement."""

LossChoice = Literal["auto", LossName]


@dataclass(frozen=True)
class QuantizationConfig:
    """Everything that decides what a run writes, apart from the model and the samples.

    Attributes:
        weight_bits: 2 to 8, or 32 for float.
        activation_bits: 2 to 8, or 32 for float.
        per_channel: One weight scale per output channel instead of one per tensor; None for what suits the
            placement: per channel in ``integer``, per tensor in ``paper``.
        placement: ``integer`` for graphs that run on integers end to end, ``paper`` for the paper's tables.
        first_last: Bits of the first and last layers: ``8``, ``float``, or ``same`` as the others.
        target: The runtime that the model is written for (`onnx_lapq.graph.placement.targets`).
        full_range: Use all 8 bits of 8-bit weights also where 7 run faster.
        storage: ``int8``, or ``packed``: two 4-bit or four 2-bit weights to a byte.
        include: Globs on node names, or operators; where there are any, only nodes they match are quantized.
        exclude: Globs on node names, or operators; nodes that they match stay in float.
        op_types: Operators that are quantized; empty means all that can be.
        bits: Exceptions, ``PATTERN=BITS`` with BITS as in ``8``, ``w4`` or ``w4a8``; the last match holds.
        size_budget: Size of the file as a share of the float model's; weights get fewer bits, those that
            matter least first, until it fits. ``auto`` among ``bits`` does so until a bound on the loss.
            Either way ``weight_bits`` is the most that a weight gets, and ``storage`` is ``packed``.
        method: How step sizes are chosen: ``lapq``, or one of the baselines of docs/method.md, "Baselines".
        p: Exponent of the L_p error of method ``lp``.
        percentile: Per cent of the values that method ``percentile`` keeps unclipped.
        seed: Decides the step sizes of method ``random``.
        transform: What is done to weights of low bits first: ``none``, ``ocs`` (outlier channels are split)
            or ``dual`` (the worst tensors become sums of two).
        loss: What the search minimises; ``auto`` is ``kl`` for class scores (``soft-kl`` where
            method ``lapq`` rounds to nearest) and ``mse`` otherwise.
        p_values: The p of the L_p errors that are sampled, ascending (docs/method.md, "Layer-wise step
            sizes").
        optimizer: The joint step: ``powell`` (ours), ``scipy-powell`` (the authors'), or ``none``; ``auto``
            is ``powell`` for method ``lapq`` and ``none`` for the others.
        max_evaluations: Cap on the loss evaluations of the joint step.
        max_minutes: Cap on the minutes up to the end of the joint step; nothing else is cut short.
        guard: Share of the calibration samples that only guards against overfitting, 0 to 0.5.
        equalize: Even out the channels between layers first (`onnx_lapq.stages.equalization`). None tries it
            around depthwise convolutions where method ``lapq`` gives weights one scale per tensor, and keeps
            the better network.
        rounding: ``compensated`` (docs/method.md, "Compensated rounding") or ``nearest``; ``auto`` is
            ``compensated`` for method ``lapq`` and ``nearest`` for the others.
        bias_correction: Move the mean shift of quantized weights into the bias.
        preprocessing: From decoded images to what the model takes.
        samples: Use at most this many calibration samples.
        workers: Threads; None means one per core.
        executor: What evaluates the loss: ``local`` threads, or ``ray`` actors with a part of the samples
            each, as many as ``workers`` (extra ``ray``).
        provider: The execution provider of onnxruntime that runs the network, such as ``CUDA``; the CPU runs
            the nodes that it does not.
        memory: Bytes that remembered codes may take.
        resume: Go on where an interrupted run to the same output was.
        keep_best: Write the best model so far when the joint step or what follows it is interrupted
            (docs/search.md).
        verify: Run the written file in plain onnxruntime on a batch of samples, and deliver it only where its
            outputs are those of the search.
        report: Measure what ``OUT.report.html`` shows beyond the record, and write it with the model; costs 2
            loss evaluations for each searched step size.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool | None = None
    placement: Literal["integer", "paper"] = "integer"
    first_last: Literal["8", "float", "same"] = "8"
    target: TargetName = "ort-x86"
    full_range: bool = False
    storage: Literal["int8", "packed"] = "int8"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()
    bits: tuple[str, ...] = ()
    size_budget: float | None = None
    method: MethodName = "lapq"
    p: float = 2.5
    percentile: float = 99.99
    seed: int = 0
    transform: Literal["none", "ocs", "dual"] = "none"
    loss: LossChoice = "auto"
    p_values: tuple[float, ...] = tuple(2 + 2 * step / 9 for step in range(10))
    optimizer: Literal["auto", "powell", "scipy-powell", "none"] = "auto"
    max_evaluations: int | None = None
    max_minutes: float | None = None
    guard: float = 0.2
    equalize: bool | None = None
    rounding: Literal["auto", "compensated", "nearest"] = "auto"
    bias_correction: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    samples: int | None = None
    workers: int | None = None
    executor: Literal["local", "ray"] = "local"
    provider: str = CPU
    memory: int = 448 << 20
    resume: bool = False
    keep_best: bool = False
    verify: bool = True
    report: bool = False

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, bits in (("weight_bits", self.weight_bits), ("activation_bits", self.activation_bits)):
            if bits != FLOAT_BITS and not 2 <= bits <= 8:
                raise ConfigError(f"{name} is {bits}; give 2 to 8, or {FLOAT_BITS} for float")
        if self.weight_bits == self.activation_bits == FLOAT_BITS:
            raise ConfigError("weight_bits and activation_bits are both 32; nothing is left to quantize")
        if len(self.p_values) < 3 or any(p < 1 for p in self.p_values):
            raise ConfigError("p_values needs three values or more, each at least 1")
        if list(self.p_values) != sorted(set(self.p_values)):
            raise ConfigError("p_values must ascend")
        if not 0 < self.p < math.inf:
            raise ConfigError(f"p is {self.p}; give a number above 0")
        if not 0 < self.percentile <= 100:
            raise ConfigError(f"percentile is {self.percentile}; give one above 0 and at most 100")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; give 0 or more")
        if self.size_budget is not None and not 0 < self.size_budget <= 1:
            raise ConfigError(f"size_budget is {self.size_budget}; give a share of the float file, as 0.2")
        if not 0 <= self.guard <= 0.5:
            raise ConfigError(f"guard is {self.guard}; give a share from 0 to 0.5")
        for name, value in (
            ("max_evaluations", self.max_evaluations),
            ("max_minutes", self.max_minutes),
            ("samples", self.samples),
            ("workers", self.workers),
        ):
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}; give a number above 0")
        find_provider(self.provider)
        rules = [rule.activations for rule in self.placement_options().bits]
        widths = {self.activation_bits, *(bits for bits in rules if bits is not None)}
        self.runtime().check(widths, "packed" if self.chooses_bits else self.storage)

    def resolved(self) -> Self:
        """The same options, with what ``auto`` stands for, and the provider by its full name."""
        optimizer, rounding = self.optimizer, self.rounding
        if optimizer == "auto":
            optimizer = "powell" if self.method == "lapq" else "none"
        if rounding == "auto":
            rounding = "compensated" if self.method == "lapq" else "nearest"
        storage = "packed" if self.chooses_bits else self.storage
        options = self.placement_options()
        helps = self.method == "lapq" and options.policy == "integer" and not options.per_channel
        equalize = self.equalize if helps else bool(self.equalize)
        return replace(
            self,
            optimizer=optimizer,
            rounding=rounding,
            storage=storage,
            equalize=equalize,
            provider=find_provider(self.provider),
        )

    @property
    def chooses_bits(self) -> bool:
        """Whether the run chooses the bits of every weight."""
        return self.size_budget is not None or AUTO_BITS in self.bits

    @property
    def threads(self) -> int:
        """The number of threads that ``workers`` stands for."""
        return self.workers or os.cpu_count() or 1

    def deciding(self) -> dict[str, Any]:
        """The options that decide what is written; threads, memory, interruptions and the page do not."""
        others = ("workers", "executor", "memory", "resume", "keep_best", "report", "verify")
        return {name: value for name, value in asdict(self).items() if name not in others}

    def runtime(self) -> Target:
        """What the target demands."""
        target = TARGETS[self.target]
        return target.at_full_range() if self.full_range else target

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
            widest_weight=self.runtime().weight_bits,
            chosen=chosen or {},
        )
