"""What the runtimes that a model is written for demand of it.

================  ======================  ======================  =====  ===========================
target            activations             weights of 8 bits       bias   below 8 bits
================  ======================  ======================  =====  ===========================
``ort-x86``       uint8, any zero point   int8 in pairs [1]_      int32  weights and activations
``ort-x86-vnni``  uint8, any zero point   int8                    int32  weights and activations
``ort-arm``       uint8, any zero point   int8                    int32  weights and activations
``tensorrt``      int8, zero point 0      int8                    float  weights
``openvino``      uint8, any zero point   int8                    float  weights and activations
``qnn``           uint8, any zero point   uint8, zero point 128   int32  weights
                  (per-channel)           int8                    int32  weights
``generic``       uint8, any zero point   int8                    float  weights and activations
================  ======================  ======================  =====  ===========================

Weights of fewer bits are int8 without a zero point everywhere. Quantizers of fewer than 8 bits on
activations are QuantizeLinear -> Clip -> DequantizeLinear; runtimes that match QuantizeLinear ->
DequantizeLinear only do not take them. Activations of 16 bits are uint16. ``tensorrt`` and ``openvino`` do
not take them; onnxruntime does, but computes in float between them on a CPU. Weights in groups, INT4 with a
scale for every block of inputs, are for onnxruntime and ``generic``.

.. [1] Processors without VNNI add two products of uint8 and int8 in int16, which two large codes overflow.
   So neighbours share what fits (`onnx_lapq.method.pairs`), or have 7 bits where it is not known which meet.
   Kernels for depthwise convolutions add in int32, and so do processors with VNNI: ``ort-x86-vnni``. For
   processors without, ``full_range`` stores all codes as uint8 with zero point 128, which is exact too, on
   slower kernels.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.operator_sets import MICROSOFT, MINIMUM_OPSET, TYPED_CODES
from onnx_lapq.graph.placement.options import WIDE_BITS

__all__ = ["TARGETS", "Target", "TargetName"]

TargetName = Literal["ort-x86", "ort-x86-vnni", "ort-arm", "tensorrt", "openvino", "qnn", "generic"]


@dataclass(frozen=True)
class Target:
    """A runtime.

    Attributes:
        name: As on the command line.
        signed_activations: int8 codes with zero point 0, instead of uint8 with the zero point that fits.
        adds_pairs: Whether its processor may add two products of 8-bit weights in 16 bits.
        offset_weights: Store 8-bit weights as uint8 with zero point 128, instead of int8.
        offset_per_channel: Do so also with weights that have a scale per channel.
        shifted_weights: Give a MatMul's factor that is never below zero a zero point at the lowest code.
        integer_bias: Store biases as int32 in steps of input scale times weight scale, instead of float.
        low_bit_activations: Whether activations may have fewer than 8 bits.
        packed: Whether it unpacks 4-bit and 2-bit codes when it loads a model.
        for_vnni: Whether it has to run on an x86 processor with VNNI.
        wide_domain: Where QuantizeLinear for activations of 16 bits is from in opsets that lack it. Where it
            is empty the opset is raised; None is for runtimes that do not take 16 bits.
        is_onnxruntime: Whether onnxruntime runs it on the CPU: with tables that change the scale of codes, so
            that a HardSigmoid runs on codes, and with Gelu as an operator of its own.
        float_products: Whether products of two activations, as in attention, are faster in float: integer
            kernels arrange a second factor that changes with every run anew.
        float_narrow: Whether convolutions of few products are.
        depthwise_channels: What its quick integer kernel for depthwise convolutions takes a multiple of.
        takes_groups: Whether it multiplies float by weights with a scale for every group of inputs.
        keeps_reduced_axes: Whether a Squeeze behind a reduction drops the axes, instead of the reduction.
    """

    name: TargetName
    signed_activations: bool = False
    adds_pairs: bool = False
    offset_weights: bool = False
    offset_per_channel: bool = False
    shifted_weights: bool = False
    integer_bias: bool = True
    low_bit_activations: bool = True
    packed: bool = True
    for_vnni: bool = False
    wide_domain: str | None = None
    is_onnxruntime: bool = False
    float_products: bool = False
    float_narrow: bool = False
    depthwise_channels: int = 1
    takes_groups: bool = False
    keeps_reduced_axes: bool = False

    @property
    def needs_precise_kernels(self) -> bool:
        """Whether kernels of x86 processors without VNNI overflow on its weights, unlike its own."""
        return not self.adds_pairs and not self.offset_weights

    @property
    def has_wide_kernels(self) -> bool:
        """Whether it computes on activations of 16 bits."""
        return self.wide_domain is not None and not self.is_onnxruntime

    def check(self, activation_bits: Collection[int], storage: str) -> None:
        """Refuse what the runtime does not take.

        Args:
            activation_bits: All widths that are asked for; 32 is float.
            storage: ``int8`` or ``packed``.

        Raises:
            ConfigError: Says what, and what to do instead.
        """
        low = {bits for bits in activation_bits if bits < 8}
        if low and not self.low_bit_activations:
            raise ConfigError(
                f"target {self.name} takes activations of 8 bits only, not {min(low)}; use -a 8 or -a 32"
            )
        if WIDE_BITS in activation_bits and self.wide_domain is None:
            raise ConfigError(f"target {self.name} does not take activations of 16 bits; use -a 8 or -a 32")
        if storage == "packed" and not self.packed:
            raise ConfigError(f"target {self.name} does not read packed tensors; use --storage int8")

    def least_opset(self, activation_bits: Collection[int], *, in_groups: bool) -> int:
        """The lowest opset that a model may have.

        Args:
            activation_bits: All widths of activations.
            in_groups: Whether weights have a scale for every group of inputs.
        """
        wide = WIDE_BITS in activation_bits and self.wide_domain == ""
        return TYPED_CODES if wide or in_groups else MINIMUM_OPSET

    def notes(self, weight_bits: Collection[int], activation_bits: Collection[int]) -> Iterator[str]:
        """What a user who asked for other bits, or for a fast model, should know of what is written.

        Args:
            weight_bits: Of the quantizers on weights.
            activation_bits: Of those on activations.
        """
        if self.for_vnni and 8 in weight_bits:
            yield (
                "weights of 8 bits take all codes, for processors with VNNI: on x86 processors without it "
                "the answers are wrong; for those, --target ort-x86"
            )
        if self.is_onnxruntime and WIDE_BITS in activation_bits:
            yield (
                "onnxruntime has no CPU kernels for activations of 16 bits: it computes in float between "
                "their quantizers, and takes longer than with 8 bits; use -a 8 or -a 32 for a CPU"
            )

    def at_full_range(self) -> "Target":
        """The same runtime with all codes of 8-bit weights."""
        if not self.adds_pairs:
            return self
        return replace(
            self, adds_pairs=False, offset_weights=True, offset_per_channel=True, shifted_weights=False
        )


_X86 = Target(
    "ort-x86",
    adds_pairs=True,
    wide_domain=MICROSOFT,
    shifted_weights=True,
    is_onnxruntime=True,
    float_products=True,
    float_narrow=True,
    depthwise_channels=16,
    takes_groups=True,
)

TARGETS: dict[TargetName, Target] = {
    target.name: target
    for target in (
        _X86,
        replace(_X86, name="ort-x86-vnni", adds_pairs=False, shifted_weights=False, for_vnni=True),
        Target("ort-arm", wide_domain=MICROSOFT, is_onnxruntime=True, takes_groups=True),
        Target(
            "tensorrt", signed_activations=True, integer_bias=False, low_bit_activations=False, packed=False
        ),
        Target("openvino", integer_bias=False, keeps_reduced_axes=True),
        Target("qnn", offset_weights=True, low_bit_activations=False, packed=False, wide_domain=MICROSOFT),
        Target("generic", integer_bias=False, wide_domain="", takes_groups=True),
    )
}
