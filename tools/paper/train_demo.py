"""Train the demo network on Fashion-MNIST and write the folder `demo/`.

How to run it, from the root of the repository::

    apt-get install dataset-fashion-mnist
    pip install torch==2.13.0 onnx onnxruntime onnxscript pillow
    python tools/paper/train_demo.py

It writes `model.onnx` (a ResNet-8 whose BatchNormalization nodes are left in place), `calib/` (200 images
that were never trained on) and `test/` (800 images of the official test split), both as
`<NN_class>/<NNNN>.png`. The seed and the number of threads are fixed; a different processor or torch build
may still round differently and end at slightly different weights.
"""

import argparse
import gzip
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxscript import FLOAT, opset18
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

CLASSES = (
    "t_shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
MEAN, STD = 0.2860, 0.3530
OPSET = 20
SEED = 0
THREADS = 2
HELD_OUT = 2_000
CALIBRATION_PER_CLASS = 20
TEST_PER_CLASS = 80
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 0.2
WEIGHT_DECAY = 5e-4
MAX_SHIFT = 2


@dataclass(frozen=True)
class Split:
    """Images as uint8 (N, 28, 28) and their class numbers as int64 (N)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> "Split":
        """The images and labels at `rows`."""
        return Split(self.images[rows], self.labels[rows])

    def first_of_each_class(self, count: int) -> "Split":
        """The first `count` images of each class, in class order."""
        rows = [np.flatnonzero(self.labels == number)[:count] for number in range(len(CLASSES))]
        return self[np.concatenate(rows)]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The network's input (N, 1, 28, 28) and the labels."""
        pixels = torch.from_numpy(self.images).unsqueeze(1).float() / 255
        return (pixels - MEAN) / STD, torch.from_numpy(self.labels)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped idx file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape.tolist())


def read_split(folder: Path, prefix: str) -> Split:
    """Read the split called `train` or `t10k`."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return Split(images.copy(), labels.astype(np.int64))


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, then a batch normalization."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """The basic ResNet block; its shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(inputs, outputs, 3, stride)
        self.second = conv_bn(outputs, outputs, 3)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same_shape else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions beside the shortcut."""
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(y + self.shortcut(x))


class DemoNet(nn.Module):
    """A ResNet-8: stem, three residual blocks (16, 32, 64 channels), global average pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 16, 3)
        self.blocks = nn.Sequential(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Class scores before the softmax."""
        features = self.blocks(functional.relu(self.stem(image)))
        return self.head(self.pool(features).flatten(1))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and shift each by up to `MAX_SHIFT` pixels."""
    count, _, height, width = images.shape
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    padded = functional.pad(images, [MAX_SHIFT] * 4, value=-MEAN / STD)
    shift = torch.randint(2 * MAX_SHIFT + 1, (2, count, 1, 1), generator=generator)
    rows = shift[0] + torch.arange(height).view(1, height, 1)
    columns = shift[1] + torch.arange(width).view(1, 1, width)
    return padded[torch.arange(count).view(count, 1, 1), 0, rows, columns].unsqueeze(1)


def train(make: Callable[[], nn.Module], split: Split, epochs: int) -> nn.Module:
    """Train a new network with SGD under a one-cycle learning rate; the last weights are the result."""
    torch.manual_seed(SEED)
    network = make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    return fit(network, optimizer, PEAK_LEARNING_RATE, split, epochs)


def fit(
    network: nn.Module, optimizer: torch.optim.Optimizer, peak: float, split: Split, epochs: int
) -> nn.Module:
    """Train a network; its learning rate rises to the peak and falls again, once."""
    generator = torch.Generator().manual_seed(SEED)
    images, labels = split.tensors()
    steps = epochs * math.ceil(len(labels) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps)
    for epoch in range(1, epochs + 1):
        start, total = time.monotonic(), 0.0
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH_SIZE):
            loss = functional.cross_entropy(network(augment(images[rows], generator)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(
            f"epoch {epoch:2}: loss {total / len(labels):.4f}, {time.monotonic() - start:.0f} s", flush=True
        )
    return network.eval()


def global_average_pool(image: FLOAT, output_size: list[int]) -> FLOAT:
    """One ONNX node for `AdaptiveAvgPool2d(1)`, which the exporter would turn into a ReduceMean."""
    return opset18.GlobalAveragePool(image)


def export(network: nn.Module, path: Path) -> None:
    """Write the network as one ONNX file, batch normalizations unfolded, without traces of this machine."""
    program = torch.onnx.export(
        network.to(memory_format=torch.contiguous_format),
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        custom_translation_table={torch.ops.aten.adaptive_avg_pool2d.default: global_average_pool},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    strip_metadata(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def strip_metadata(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold stack traces and the paths of this machine."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def logits_of(path: Path, images: Tensor) -> Tensor:
    """What onnxruntime makes of the exported network."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    chunks = [session.run(["logits"], {"image": chunk.numpy()})[0] for chunk in images.split(500)]
    return torch.from_numpy(np.concatenate(chunks))


def verify(network: nn.Module, path: Path, images: Tensor) -> None:
    """Raise unless onnxruntime and torch agree on `images`."""
    with torch.inference_mode():
        expected = network(images)
    torch.testing.assert_close(logits_of(path, images), expected, rtol=1e-3, atol=1e-3)


def top1(path: Path, split: Split) -> float:
    """Top-1 of the exported network in per cent."""
    images, labels = split.tensors()
    return 100 * (logits_of(path, images).argmax(1) == labels).float().mean().item()


def write_images(split: Split, folder: Path) -> None:
    """Write `<NN_class>/<NNNN>.png`, numbered within each class."""
    for number, name in enumerate(CLASSES):
        target = folder / f"{number:02}_{name}"
        target.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(split.images[split.labels == number]):
            Image.fromarray(image).save(target / f"{index:04}.png", optimize=True)


def write_folder(network: nn.Module, folder: Path, held_out: Split, test: Split) -> None:
    """Write `model.onnx`, `calib/` and `test/`, and print how good the model is."""
    folder.mkdir(parents=True, exist_ok=True)
    path, small_test = folder / "model.onnx", test.first_of_each_class(TEST_PER_CLASS)
    export(network, path)
    verify(network, path, held_out.tensors()[0])
    write_images(held_out.first_of_each_class(CALIBRATION_PER_CLASS), folder / "calib")
    write_images(small_test, folder / "test")
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"top-1: {top1(path, test):.2f} % of {len(test.labels):,} test images, ", end="")
    print(f"{top1(path, small_test):.2f} % of the {len(small_test.labels)} in test/")


def parse_arguments(description: str, epochs: int, out: Path) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    return parser.parse_args()


def main() -> None:
    """Train, export, verify, and write the images."""
    demo = Path(__file__).resolve().parents[2] / "demo"
    arguments = parse_arguments("Train the demo network and write the folder demo/.", 10, demo)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    training, test = read_split(arguments.data, "train"), read_split(arguments.data, "t10k")
    network = train(DemoNet, training[:-HELD_OUT], arguments.epochs)
    write_folder(network, arguments.out, training[-HELD_OUT:], test)


if __name__ == "__main__":
    main()
