"""Which integer kernels of onnxruntime overflow on this processor, shown by sums of the largest products.

    python tools/robustness/overflow.py
    qemu-x86_64 -cpu Haswell python tools/robustness/overflow.py

Each layer multiplies activations of 255 by the same codes for all outputs. Its output has the scale that
makes the exact sum 200; less is an overflow. The second line runs it as on a processor with AVX2 and without
VNNI.

In a row of pairs, input channels 2i and 2i + 1 have codes of 127 and 1, in either order: 128 together, which
fits int16 times 255. Wherever a kernel adds two others, it meets codes of 127 twice.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_EXACT = 200
_SIZE = 12
_FULL, _PAIRS = (127, 127, 127, 127), (127, 1, 1, 127)


@dataclass(frozen=True)
class _Layer:
    """A layer of as many output channels as input channels.

    Attributes:
        channels: Of a group.
        kernel: Of the convolution; none for a matrix product.
        groups: Of channels.
        codes: Of the input channels, in turn.
    """

    channels: int
    kernel: tuple[int, ...]
    groups: int = 1
    codes: tuple[int, ...] = _FULL

    @property
    def outputs(self) -> int:
        """Output channels of all groups, and input channels."""
        return self.channels * self.groups


_LAYERS = {
    "pointwise, 32 channels": _Layer(32, (1, 1)),
    "3x3, 32 channels": _Layer(32, (3, 3)),
    "matrix product, 32 channels": _Layer(32, ()),
    "depthwise 3x3, 32 channels": _Layer(1, (3, 3), 32),
    "depthwise 3x3, 20 channels": _Layer(1, (3, 3), 20),
    "depthwise 5x5, 8 channels": _Layer(1, (5, 5), 8),
    "depthwise 3, 7 channels": _Layer(1, (3,), 7),
    "depthwise 3x3x3, 16 channels": _Layer(1, (3, 3, 3), 16),
    "pairs, pointwise, 32 channels": _Layer(32, (1, 1), codes=_PAIRS),
    "pairs, pointwise, 27 channels": _Layer(27, (1, 1), codes=_PAIRS),
    "pairs, 3x3, 32 channels": _Layer(32, (3, 3), codes=_PAIRS),
    "pairs, 3x3, 6 channels": _Layer(6, (3, 3), codes=_PAIRS),
    "pairs, 5, 10 channels": _Layer(10, (5,), codes=_PAIRS),
    "pairs, 3x3x3, 6 channels": _Layer(6, (3, 3, 3), codes=_PAIRS),
    "pairs, 3x3, 4 groups of 6": _Layer(6, (3, 3), 4, _PAIRS),
    "pairs, matrix product, 32 channels": _Layer(32, (), codes=_PAIRS),
    "pairs, matrix product, 27 channels": _Layer(27, (), codes=_PAIRS),
}


def main() -> None:
    """Print a line for each layer, of many positions and of one."""
    print(f"onnxruntime {ort.__version__}, an exact sum is {_EXACT}")
    for name, layer in _LAYERS.items():
        print(f"{name:36} {_sum_found(layer, _SIZE):4} {_sum_found(layer, 1):4}")


def _sum_found(layer: _Layer, size: int) -> int:
    """The output code of a layer of the largest codes, the smallest of them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        _model(layer).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    taps = layer.kernel
    shape = (1, layer.outputs, *(tap - 1 + size for tap in taps)) if taps else (size, layer.outputs)
    found = session.run(None, {"x": np.full(shape, 255, np.uint8)})[0]
    return int(np.asarray(found).min())


def _model(layer: _Layer) -> ModelProto:
    weight = _weight(layer)
    names, node = _node(layer)
    total = 255 * int(weight.sum(dtype=np.int64)) // layer.outputs
    of_weight = np.ones(layer.outputs, np.float32), np.zeros(layer.outputs, np.int8)
    arrays = [np.float32(1), np.uint8(0), weight, *of_weight, np.float32(total / _EXACT), np.uint8(0)]
    tensors = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in zip(names, arrays, strict=True)
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in "xy"]
    graph = helper.make_graph([node], "layer", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def _weight(layer: _Layer) -> npt.NDArray[np.int8]:
    """[outputs, inputs of a group, *kernel], or the matrix of [inputs, outputs]."""
    codes = np.resize(np.array(layer.codes, np.int8), layer.channels)
    if not layer.kernel:
        return np.tile(codes[:, None], (1, layer.outputs))
    by_input = codes.reshape(1, -1, *(1 for _ in layer.kernel))
    return np.tile(by_input, (layer.outputs, 1, *layer.kernel))


def _node(layer: _Layer) -> tuple[list[str], NodeProto]:
    """The node, and the names of its constants."""
    names = ["x_scale", "x_zero_point", "w", "w_scale", "w_zero_point", "y_scale", "y_zero_point"]
    if layer.kernel:
        return names, helper.make_node("QLinearConv", ["x", *names], ["y"], group=layer.groups)
    return names, helper.make_node("QLinearMatMul", ["x", *names], ["y"])


if __name__ == "__main__":
    main()
