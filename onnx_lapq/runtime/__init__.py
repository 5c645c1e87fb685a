"""Onnxruntime: sessions, execution providers, and which kernels run."""
