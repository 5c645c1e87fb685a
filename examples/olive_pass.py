"""An Olive pass that quantizes an ONNX model: pip install olive-ai onnx-lapq."""

from pathlib import Path
from typing import Any

from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.pass_config import PassConfigParam

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration import Preprocessing


class LapqQuantization(Pass):
    """Weights and activations of 2 to 8 bits, by the loss of the quantized network."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        return {
            "calibration": PassConfigParam(
                type_=str, required=True, description="Folder of images or arrays, or one .npz."
            ),
            "options": PassConfigParam(
                type_=dict, default_value={}, description="Fields of onnx_lapq.QuantizationConfig."
            ),
            "preprocessing": PassConfigParam(
                type_=dict, default_value={}, description="Fields of onnx_lapq.calibration.Preprocessing."
            ),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: Any, output_model_path: str
    ) -> ONNXModelHandler:
        output = Path(resolve_onnx_path(output_model_path))
        output.parent.mkdir(parents=True, exist_ok=True)
        options = QuantizationConfig(preprocessing=Preprocessing(**config.preprocessing), **config.options)
        quantize(model.model_path, config.calibration, options).save(output)
        return ONNXModelHandler(str(output))


if __name__ == "__main__":
    lapq = create_pass_from_dict(
        LapqQuantization,
        {
            "calibration": "demo/calib",
            "options": {"weight_bits": 4, "activation_bits": 4, "samples": 60, "max_evaluations": 20},
            "preprocessing": {"mean": [0.2860], "std": [0.3530]},
        },
        disable_search=True,
    )
    quantized = lapq.run(ONNXModelHandler("demo/model.onnx"), "olive_w4a4")
    print(f"wrote {quantized.model_path}")
