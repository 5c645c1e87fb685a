"""A segment of the network with its sessions, ready to run at a point."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from onnx_lapq.graph.writing.encodings import WeightEncoding
from onnx_lapq.graph.writing.export import weight_tensors
from onnx_lapq.graph.writing.qdq import code_limits, limits_name, scale_name
from onnx_lapq.graph.writing.segments import Segment
from onnx_lapq.runtime.session import Feeds, detach, run

__all__ = ["Point", "Runner"]

_Opener = Callable[[onnx.ModelProto, Mapping[str, np.ndarray]], ort.InferenceSession]

_SESSIONS = 3


@dataclass(frozen=True)
class Point:
    """One candidate network: scales of all activation sites, encodings of all weight sites."""

    scales: Mapping[str, float]
    weights: Mapping[str, WeightEncoding]


class Runner:
    """A segment with its sessions: the one in use and the last few, for the point the search returns to."""

    def __init__(self, segment: Segment, open_one: _Opener) -> None:
        self.segment = segment
        self._open = open_one
        self._proto, self._tensors = detach(segment.model)
        self._initializers = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        self._sessions: OrderedDict[bytes, ort.InferenceSession] = OrderedDict()
        self._session: ort.InferenceSession | None = None

    def load(self, point: Point) -> None:
        """Make ready to run at a point."""
        scales = {name: np.array(point.scales[name], dtype=np.float32) for name in self.segment.sites}
        key = b"".join(scale.tobytes() for scale in scales.values())
        key += b"".join(point.weights[name].digest for name in self.segment.weights)
        if key not in self._sessions:
            for name, scale in scales.items():
                self._replace(scale_name(name), scale)
            for site in self.segment.limited:
                self._replace(limits_name(site.name), code_limits(site, point.scales[site.name]))
            for name in self.segment.weights:
                for tensor, values in weight_tensors(name, point.weights[name]).items():
                    if tensor in self._tensors or tensor in self._initializers:
                        self._replace(tensor, values)
            self._sessions[key] = self._open(self._proto, self._tensors)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        self._session = self._sessions[key]

    def run(self, values: Feeds) -> np.ndarray:
        """The value at the segment's end, on one batch."""
        assert self._session is not None
        (result,) = run(self._session, {name: values[name] for name in self.segment.inputs})
        return result

    def _replace(self, name: str, values: np.ndarray) -> None:
        if name in self._tensors:
            self._tensors[name] = np.asarray(values, order="C")
        else:
            tensor = self._initializers[name]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.reshape(tensor.dims), name))
