"""What samples are read for."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.stored import InputSpec, OnProgress

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """What the readers of files and of data in memory share.

    Attributes:
        inputs: The model's inputs, at least one.
        preprocessing: What is done to images, and to uint8 image arrays that feed a float input.
        limit: At most this many samples, evenly over the classes; None for all.
        progress: Called with the files, or the samples, that are read and those in all.
    """

    inputs: Sequence[InputSpec]
    preprocessing: Preprocessing
    limit: int | None = None
    progress: OnProgress | None = None

    def tell(self, done: int, total: int) -> None:
        """Tell of progress, where somebody asked for it."""
        if self.progress is not None:
            self.progress(done, total)
