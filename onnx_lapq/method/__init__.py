"""LAPQ itself: numpy and scipy only, no ONNX."""
