"""``python -m onnx_lapq`` is ``onnx-lapq``."""

from onnx_lapq.cli.main import main

main(prog_name="onnx-lapq")
