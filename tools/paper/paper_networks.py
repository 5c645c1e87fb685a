"""Small relatives of the paper's networks, trained on Fashion-MNIST for `paper_tables.py`.

They keep the topology (depth, blocks, strides, activations) and are narrow, so that each trains in minutes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from train_demo import CLASSES, HELD_OUT, Residual, conv_bn, export, read_split, train, verify

__all__ = ["CALIBRATION", "NETWORKS", "prepare_network"]

CALIBRATION = 512
WIDTH = 8
EXPANSION = 4


class Bottleneck(nn.Module):
    """The block of ResNet-50 and -101: 1x1, 3x3, and a 1x1 convolution that widens fourfold."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.first = conv_bn(inputs, width, 1)
        self.second = conv_bn(width, width, 3, stride)
        self.third = conv_bn(width, outputs, 1)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same_shape else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Three convolutions beside the shortcut."""
        y = functional.relu(self.second(functional.relu(self.first(x))))
        return functional.relu(self.third(y) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """The block of MobileNet-V2: widen sixfold, 3x3 depthwise, narrow, all with ReLU6 but the last."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 6 * inputs
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.layers = nn.Sequential(
            conv_bn(inputs, hidden, 1),
            nn.ReLU6(),
            nn.Sequential(depthwise, nn.BatchNorm2d(hidden)),
            nn.ReLU6(),
            conv_bn(hidden, outputs, 1),
        )
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """The three convolutions, beside the input where the shapes agree."""
        y = self.layers(x)
        return x + y if self.adds else y


class Inception(nn.Module):
    """Four branches that meet in a Concat: 1x1, 3x3, two 3x3, and average pooling."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = _relu(conv_bn(inputs, width, 1))
        self.two = nn.Sequential(_relu(conv_bn(inputs, width, 1)), _relu(conv_bn(width, width, 3)))
        self.three = nn.Sequential(
            _relu(conv_bn(inputs, width, 1)), _relu(conv_bn(width, width, 3)), _relu(conv_bn(width, width, 3))
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), _relu(conv_bn(inputs, width, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """The branches side by side."""
        return torch.cat([self.one(x), self.two(x), self.three(x), self.pooled(x)], dim=1)


def _relu(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.ReLU())


def _classifier(body: Sequence[nn.Module], features: int) -> nn.Sequential:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, len(CLASSES)))


def _stages(
    block: Callable[[int, int, int], nn.Module], depths: Sequence[int], expansion: int
) -> nn.Sequential:
    """A ResNet with a strided stem; each stage but the first halves the image."""
    body: list[nn.Module] = [_relu(conv_bn(1, WIDTH, 3, 2))]
    inputs = WIDTH
    for stage, depth in enumerate(depths):
        width = WIDTH << stage
        for index in range(depth):
            body.append(block(inputs, width, 2 if stage and not index else 1))
            inputs = width * expansion
    return _classifier(body, inputs)


def resnet18() -> nn.Sequential:
    """ResNet-18: basic blocks 2, 2, 2, 2."""
    return _stages(Residual, (2, 2, 2, 2), 1)


def resnet50() -> nn.Sequential:
    """ResNet-50: bottleneck blocks 3, 4, 6, 3."""
    return _stages(Bottleneck, (3, 4, 6, 3), EXPANSION)


def inception() -> nn.Sequential:
    """A stem and five Inception modules, pooled twice."""
    modules: list[nn.Module] = [_relu(conv_bn(1, 2 * WIDTH, 3, 2))]
    inputs = 2 * WIDTH
    for width, pool in (
        (WIDTH, False),
        (WIDTH, True),
        (2 * WIDTH, False),
        (2 * WIDTH, True),
        (3 * WIDTH, False),
    ):
        modules.append(Inception(inputs, width))
        inputs = 4 * width
        if pool:
            modules.append(nn.MaxPool2d(3, 2, 1))
    return _classifier(modules, inputs)


def mobilenet_v2() -> nn.Sequential:
    """MobileNet-V2 with ten inverted residuals."""
    body: list[nn.Module] = [nn.Sequential(conv_bn(1, WIDTH, 3, 2), nn.ReLU6())]
    inputs = WIDTH
    for outputs, depth, stride in ((8, 2, 1), (12, 3, 2), (24, 3, 1), (32, 2, 2)):
        for index in range(depth):
            body.append(InvertedResidual(inputs, outputs, stride if not index else 1))
            inputs = outputs
    return _classifier([*body, nn.Sequential(conv_bn(inputs, 128, 1), nn.ReLU6())], 128)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": resnet18,
    "ResNet-50": resnet50,
    "Inception": inception,
    "MobileNet-V2": mobilenet_v2,
}


def prepare_network(name: str, folder: Path, data: Path, images: int, epochs: int, test_images: int) -> None:
    """Train a network unless the folder holds one; writes `model.onnx`, `calib.npz` and `test.npz`."""
    if (folder / "model.onnx").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    training, test = read_split(data, "train"), read_split(data, "t10k")
    held_out = training[-HELD_OUT:]
    print(f"{name}: training", flush=True)
    network = train(NETWORKS[name], training[: min(images, len(training.labels) - HELD_OUT)], epochs)
    for file, split in (("calib.npz", held_out[:CALIBRATION]), ("test.npz", test[:test_images])):
        np.savez_compressed(folder / file, image=split.images[:, np.newaxis], labels=split.labels)
    export(network, folder / "new.onnx")
    verify(network, folder / "new.onnx", held_out.tensors()[0])
    (folder / "new.onnx").rename(folder / "model.onnx")
