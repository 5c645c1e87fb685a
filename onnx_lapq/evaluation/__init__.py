"""The loss of a quantized network, evaluated with onnxruntime."""
