"""From PyTorch to a quantized model without a file in between: export, DataLoader, quantize.

Needs PyTorch. Writes from_pytorch_w8a8.onnx.
"""

import torch

from onnx_lapq import QuantizationConfig, quantize


def main() -> None:
    """Export a network in memory and quantize it with a DataLoader."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, stride=2)),
        *(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)),
    ).eval()
    images = torch.randn(64, 3, 16, 16)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network, (images[:2],), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    labels = torch.randint(0, 5, (64,))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=16)
    result = quantize(program.model_proto, loader, QuantizationConfig(max_evaluations=40))
    report = result.save("from_pytorch_w8a8.onnx")
    print(f"{report.loss} {report.stages[-1].loss:.2e}, {report.output.bytes} bytes")


if __name__ == "__main__":
    main()
