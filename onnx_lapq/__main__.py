"""``python -m onnx_lapq`` is ``onnx-lapq``."""

from onnx_lapq.cli.entry import main

main()
