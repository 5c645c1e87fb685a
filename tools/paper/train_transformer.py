"""Train a tiny vision transformer on Fashion-MNIST, to see what quantization makes of attention.

How to run it, from the root of the repository::

    apt-get install dataset-fashion-mnist
    pip install torch==2.13.0 onnx onnxruntime onnxscript pillow
    python tools/paper/train_transformer.py
    onnx-lapq build/transformer/model.onnx build/transformer/calib -o vit_w8a8.onnx --mean 0.2860 --std 0.3530

which prints the divergence from the float model on the way; `onnx-lapq evaluate` gives it for test images.

It writes `model.onnx`, `calib/` and `test/` as `train_demo.py` does.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from train_demo import CLASSES, HELD_OUT, SEED, THREADS, fit, parse_arguments, read_split, write_folder

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


def main() -> None:
    """Train, export, verify, and write the images."""
    out = Path("build/transformer")
    arguments = parse_arguments("Train a tiny vision transformer on Fashion-MNIST.", 5, out)
    torch.set_num_threads(THREADS)
    training, test = read_split(arguments.data, "train"), read_split(arguments.data, "t10k")
    torch.manual_seed(SEED)
    network = TinyViT()
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    fit(network, optimizer, PEAK_LEARNING_RATE, training[:-HELD_OUT], arguments.epochs)
    write_folder(network, arguments.out, training[-HELD_OUT:], test)


if __name__ == "__main__":
    main()
