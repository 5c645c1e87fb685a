"""An image classifier: quantize the demo network to 4 bits and set it beside the float one.

Run it in a clone of the repository. Writes classifier_w4a4.onnx.
"""

from pathlib import Path

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration import Preprocessing
from onnx_lapq.study.scores import evaluate_models

DEMO = Path("demo")


def main() -> None:
    """Quantize and compare."""
    preprocessing = Preprocessing(mean=(0.2860,), std=(0.3530,))
    config = QuantizationConfig(
        weight_bits=4, activation_bits=4, max_evaluations=60, preprocessing=preprocessing
    )
    result = quantize(DEMO / "model.onnx", DEMO / "calib", config)
    result.save("classifier_w4a4.onnx")
    models = [DEMO / "model.onnx", result.model]
    for name, score in zip(
        ("float", "W4A4"), evaluate_models(models, DEMO / "test", preprocessing), strict=True
    ):
        print(f"{name}: top-1 {100 * score.top1:.2f} %, {score.bytes / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
