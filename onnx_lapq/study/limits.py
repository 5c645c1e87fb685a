"""The limits that a quantized model must keep."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from onnx_lapq.common.records import check
from onnx_lapq.errors import ConfigError

__all__ = ["SEEN_BEFORE", "Gate"]

SEEN_BEFORE = "which had a part in rounding; new samples can be some dB worse"
"""What is said of limits that hold on calibration samples."""

_Accuracy = Annotated[
    float, Meta(description="a share from 0 to 1, such as 0.9 for 90 %; with metric any number")
]


@dataclass(frozen=True)
class Gate:
    """Limits on a test set; a model that misses one is not written, and the exit code is 3.

    Attributes:
        test: Test samples, as CALIB; both models are scored on them. They should have had no part in the
            calibration.
        metric: Your own metric, ``package.module:function``; it takes the place of the accuracy. The function
            gets the outputs of a model on all test samples, those of the float model, both by name, and the
            labels or None. It gives one number for each sample, or one for all; more is better. Where
            the outputs of samples differ in shape, it is called for those of one shape at a time, and what it
            gives is averaged by sample.
        min_accuracy: Least top-1 accuracy on the test samples, such as 0.9. With ``metric``, its least value.
        max_drop: Most fall of top-1 accuracy from the float model's, such as 0.01. With ``metric``, its most
            fall.
        max_kl: Most KL divergence from the float model, in nats.
        min_snr: Least signal-to-noise ratio of every output and every part of one, in dB, such as 15.
        promote: Raise bits where they matter most until the limits hold. As few as it can, within
            ``max_minutes``; without a test set the limits hold on calibration samples. Bits that ``bits``
            gives are kept, and ``storage`` is ``packed`` where the target reads it.
    """

    test: str | None = None
    metric: str | None = None
    min_accuracy: _Accuracy | None = None
    max_drop: _Accuracy | None = None
    max_kl: Annotated[float, Meta(ge=0, description="a number of nats from 0 on")] | None = None
    min_snr: Annotated[float, Meta(description="a number of dB")] | None = None
    promote: bool = False

    def __post_init__(self) -> None:
        check(self)
        for name in ("min_accuracy", "max_drop"):
            value = getattr(self, name)
            if self.metric is None and value is not None and not 0 <= value <= 1:
                raise ConfigError(
                    f"{name} is {value}; give a share from 0 to 1, such as 0.9 for 90 %, or a --metric"
                )
        if self.promote and set(self.limits()) == {None}:
            raise ConfigError(
                "--promote raises bits until a limit holds, and there is none; give max_kl, min_snr, "
                "max_drop or min_accuracy"
            )
        if self.test is None and not self.promote and {self.metric, *self.limits()} != {None}:
            raise ConfigError(
                "--metric, min_accuracy, max_drop, max_kl and min_snr need a test set; give --test"
            )

    def limits(self) -> tuple[float | None, ...]:
        """All limits, None where there is none."""
        return self.min_accuracy, self.max_drop, self.max_kl, self.min_snr
