"""Sets of operators that a written model may need, and their versions."""

__all__ = ["MICROSOFT", "MINIMUM_OPSET", "TYPED_CODES"]

MINIMUM_OPSET = 13
"""Integer Min needs opset 12, per-axis scales 13."""

TYPED_CODES = 21
"""The opset from which on QuantizeLinear says the type of its codes, and has codes of 16 bits."""

MICROSOFT = "com.microsoft"
"""The domain of the operators of onnxruntime."""
