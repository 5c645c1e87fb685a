"""A voice detector that keeps a state: sound, state and sample rate in, score and next state out.

Writes voice.onnx, and into voice_steps/ what a loop feeds to it, a file for each step. Stands for a model of
yours; its weights are random. Quantize it from here, or with

    onnx-lapq voice.onnx voice_steps --set sr=16000 -o voice_q.onnx
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from onnx_lapq import QuantizationConfig, quantize

GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
voice (float[batch, 512] sound, float[2, batch, 32] state, int64 sr)
    => (float[batch, 1] speech, float[2, batch, 32] next)
<int64 usual = {16000}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}> {
    is_usual = Equal(sr, usual)
    speech, next = If (is_usual) <
        then_branch = usual_rate () => (float[batch, 1] speech16, float[2, batch, 32] next16) {
            wave = Unsqueeze(sound, one)
            bands = Conv<strides = [32]>(wave, filters)
            heard = Relu(bands)
            steps = Transpose<perm = [2, 0, 1]>(heard)
            before = Slice(state, zero, one, zero)
            cell = Slice(state, one, two, zero)
            all, last, last_cell = LSTM<hidden_size = 32>(steps, inner, loop, , , before, cell)
            next16 = Concat<axis = 0>(last, last_cell)
            flat = Squeeze(last, zero)
            logit = MatMul(flat, head)
            speech16 = Sigmoid(logit)
        },
        else_branch = other_rate () => (float[batch, 1] speech8, float[2, batch, 32] next8) {
            speech8 = ReduceMean<keepdims = 1>(sound, one)
            next8 = Identity(state)
        }
    >
}
"""
SHAPES = {"filters": (16, 1, 64), "inner": (1, 128, 16), "loop": (1, 128, 32), "head": (32, 1)}


def main() -> None:
    """Build, run a loop, save, quantize."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        weights = (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    onnx.save(model, "voice.onnx")
    session = ort.InferenceSession("voice.onnx")
    state, feeds = np.zeros((2, 1, 32), np.float32), []
    for _ in range(64):
        sound = random.standard_normal((1, 512)).astype(np.float32)
        feeds.append({"sound": sound, "state": state, "sr": np.array(16000)})
        _, state = session.run(None, feeds[-1])
    Path("voice_steps").mkdir(exist_ok=True)
    for number, feed in enumerate(feeds):
        np.savez(f"voice_steps/{number:03}.npz", **feed)
    config = QuantizationConfig(set=("sr=16000",), max_evaluations=20)
    report = quantize(model, feeds, config).save("voice_w8a8.onnx")
    print({output.name: output.snr_db and round(output.snr_db) for output in report.outputs})


if __name__ == "__main__":
    main()
