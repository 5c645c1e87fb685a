"""Which integer kernels of onnxruntime overflow on this processor, shown by sums of the largest products.

    python tools/robustness/overflow.py
    qemu-x86_64 -cpu Haswell python tools/robustness/overflow.py

Each convolution multiplies activations of 255 by weights of 127. Its output has the scale that makes the
exact sum 200; less is an overflow. The second line runs it as on a processor with AVX2 and without VNNI.
"""

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

_EXACT = 200
_SIZE = 12
_CASES: dict[str, tuple[int, tuple[int, ...], bool]] = {
    "pointwise, 32 channels": (32, (1, 1), False),
    "3x3, 32 channels": (32, (3, 3), False),
    "depthwise 3x3, 32 channels": (32, (3, 3), True),
    "depthwise 3x3, 20 channels": (20, (3, 3), True),
    "depthwise 5x5, 8 channels": (8, (5, 5), True),
    "depthwise 3, 7 channels": (7, (3,), True),
    "depthwise 3x3x3, 16 channels": (16, (3, 3, 3), True),
}
"""Channels, kernel, and whether each channel is by itself."""


def main() -> None:
    """Print a line for each convolution."""
    print(f"onnxruntime {ort.__version__}, an exact sum is {_EXACT}")
    for name, (channels, kernel, depthwise) in _CASES.items():
        print(f"{name:30} {_sum_found(channels, kernel, depthwise=depthwise)}")


def _sum_found(channels: int, kernel: tuple[int, ...], *, depthwise: bool) -> int:
    """The output code of a convolution of the largest codes, the smallest of them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = _convolution(channels, kernel, depthwise=depthwise)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.full((1, channels, *[_SIZE] * len(kernel)), 255, np.uint8)
    return int(np.asarray(session.run(None, {"x": x})[0]).min())


def _convolution(channels: int, kernel: tuple[int, ...], *, depthwise: bool) -> ModelProto:
    weight = np.full((channels, 1 if depthwise else channels, *kernel), 127, np.int8)
    constants = {
        "x_scale": np.float32(1),
        "x_zero_point": np.uint8(0),
        "w": weight,
        "w_scale": np.ones(channels, np.float32),
        "w_zero_point": np.zeros(channels, np.int8),
        "y_scale": np.float32(255 * 127 * weight[0].size / _EXACT),
        "y_zero_point": np.uint8(0),
    }
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"], group=channels if depthwise else 1)
    values = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [None] * (2 + len(kernel))) for name in "xy"
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph([node], "convolution", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


if __name__ == "__main__":
    main()
