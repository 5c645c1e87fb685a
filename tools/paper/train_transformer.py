"""Train a tiny vision transformer on Fashion-MNIST, to see what quantization makes of attention.

How to run it, from the root of the repository::

    apt-get install dataset-fashion-mnist
    pip install torch==2.13.0 onnx onnxruntime onnxscript pillow
    python tools/paper/train_transformer.py --out build/transformer
    onnx-lapq build/transformer/model.onnx build/transformer/calib -o vit_w8a8.onnx --mean 0.2860 --std 0.3530

which prints the divergence from the float model on the way; `onnx-lapq evaluate` gives it for test images.

It writes `model.onnx`, `calib/` and `test/` as `train_demo.py` does.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from train_demo import (
    BATCH_SIZE,
    CALIBRATION_PER_CLASS,
    CLASSES,
    HELD_OUT,
    SEED,
    TEST_PER_CLASS,
    THREADS,
    Split,
    augment,
    export,
    read_split,
    top1,
    verify,
    write_images,
)

PATCH, WIDTH, HEADS, DEPTH = 4, 64, 4, 4
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, then two linear layers around a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, T, WIDTH] to tokens."""
        count, length, _ = x.shape
        parts = self.qkv(self.norms[0](x)).view(count, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(-1)
        x = x + self.mix((attention @ value).transpose(1, 2).reshape(count, length, WIDTH))
        return x + self.mlp(self.norms[1](x))


class TinyViT(nn.Module):
    """Patches of 4x4 pixels, four blocks of width 64, mean over the tokens, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (28 // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Class scores before the softmax."""
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def train(split: Split, epochs: int) -> TinyViT:
    """Train with AdamW under a one-cycle learning rate; the last weights are the result."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = split.tensors()
    network = TinyViT()
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(labels) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    for epoch in range(1, epochs + 1):
        start = time.monotonic()
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH_SIZE):
            loss = functional.cross_entropy(network(augment(images[rows], generator)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch:2}: last loss {loss.item():.4f}, {time.monotonic() - start:.0f} s", flush=True)
    return network.eval()


def main() -> None:
    """Train, export, verify, and write the images."""
    parser = argparse.ArgumentParser(description="Train a tiny vision transformer on Fashion-MNIST.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    training, test = read_split(arguments.data, "train"), read_split(arguments.data, "t10k")
    held_out = training[-HELD_OUT:]
    network = train(training[:-HELD_OUT], arguments.epochs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "model.onnx"
    export(network, path)
    verify(network, path, held_out.tensors()[0])
    write_images(held_out.first_of_each_class(CALIBRATION_PER_CLASS), arguments.out / "calib")
    write_images(test.first_of_each_class(TEST_PER_CLASS), arguments.out / "test")
    print(f"{path}: top-1 {top1(path, test):.2f} % of {len(test.labels):,} test images")


if __name__ == "__main__":
    main()
