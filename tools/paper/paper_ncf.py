"""NeuMF (neural collaborative filtering) on MovieLens-100k, for `paper_tables.py`.

The ratings come from the RecBole wheel, which holds them as an example::

    pip download --no-deps recbole==1.2.1
"""

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from train_demo import OPSET, SEED, strip_metadata

__all__ = ["hit_rate", "prepare_neumf"]

RATINGS = "recbole/dataset_example/ml-100k/ml-100k.inter"
NEGATIVES_TRAIN, NEGATIVES_TEST, TOP = 4, 99, 10
CALIBRATION = 50_000
MLP_WIDTH, GMF_WIDTH, HIDDEN = 64, 32, (128, 64, 32)
BATCH_SIZE, LEARNING_RATE = 1024, 1e-3

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Interactions:
    """Who has seen what: user and item numbers from 0, [n] each; each user's last item is kept apart."""

    users: Ids
    items: Ids
    last: Ids
    seen: NDArray[np.bool_]

    def with_negatives(self, random: np.random.Generator, per_positive: int) -> tuple[Ids, Ids, Ids]:
        """Users, items and labels: every interaction, and as many unseen items as asked for each."""
        users = np.tile(self.users, 1 + per_positive)
        unseen = random.integers(0, self.seen.shape[1], len(self.users) * per_positive)
        while (bad := self.seen[users[len(self.users) :], unseen]).any():
            unseen[bad] = random.integers(0, self.seen.shape[1], bad.sum())
        labels = np.arange(len(users)) < len(self.users)
        return users, np.concatenate([self.items, unseen]), labels.astype(np.int64)


def read_interactions(wheel: Path) -> Interactions:
    """Read MovieLens-100k out of the RecBole wheel."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(RATINGS).decode().splitlines()[1:]
    table = np.array([line.split("\t") for line in lines], dtype=np.float64).astype(np.int64)
    users, items = (np.unique(table[:, column], return_inverse=True)[1] for column in (0, 1))
    order = np.lexsort((table[:, 3], users))
    users, items = users[order], items[order]
    is_last = np.append(np.diff(users) != 0, True)
    seen = np.zeros((users.max() + 1, items.max() + 1), dtype=np.bool_)
    seen[users, items] = True
    return Interactions(users[~is_last], items[~is_last], items[is_last], seen)


class NeuMF(nn.Module):
    """A product of embeddings beside a perceptron on other embeddings; one logit."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.mlp_user, self.mlp_item = nn.Embedding(users, MLP_WIDTH), nn.Embedding(items, MLP_WIDTH)
        self.gmf_user, self.gmf_item = nn.Embedding(users, GMF_WIDTH), nn.Embedding(items, GMF_WIDTH)
        widths = (2 * MLP_WIDTH, *HIDDEN)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out = nn.Linear(HIDDEN[-1] + GMF_WIDTH, 1)
        for table in (self.mlp_user, self.mlp_item, self.gmf_user, self.gmf_item):
            nn.init.normal_(table.weight, std=0.01)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits [N] of users [N] and items [N]."""
        x = torch.cat([self.mlp_user(user), self.mlp_item(item)], dim=1)
        for layer in self.layers:
            x = functional.relu(layer(x))
        product = self.gmf_user(user) * self.gmf_item(item)
        return self.out(torch.cat([x, product], dim=1)).squeeze(1)


def train(data: Interactions, epochs: int) -> NeuMF:
    """Train with Adam on the binary cross-entropy, new negatives in every epoch."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    network = NeuMF(*data.seen.shape)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for epoch in range(1, epochs + 1):
        users, items, labels = map(torch.from_numpy, data.with_negatives(random, NEGATIVES_TRAIN))
        total = 0.0
        for rows in torch.randperm(len(users)).split(BATCH_SIZE):
            logits = network(users[rows], items[rows])
            loss = functional.binary_cross_entropy_with_logits(logits, labels[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        print(f"NeuMF epoch {epoch:2}: loss {total / len(users):.4f}", flush=True)
    return network.eval()


def prepare_neumf(folder: Path, wheel: Path, epochs: int) -> None:
    """Train NeuMF unless the folder holds it; writes `model.onnx`, `calib.npz` and `test.npz`.

    `calib.npz` holds user/item pairs with labels, `test.npz` [users, 100] candidates, the true one first.
    """
    if (folder / "model.onnx").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data, random = read_interactions(wheel), np.random.default_rng(SEED + 1)
    network = train(data, epochs)
    users, items, labels = data.with_negatives(random, NEGATIVES_TRAIN)
    rows = random.permutation(len(users))[:CALIBRATION]
    np.savez_compressed(folder / "calib.npz", user=users[rows], item=items[rows], labels=labels[rows])
    unseen = [random.choice(np.flatnonzero(~row), NEGATIVES_TEST, replace=False) for row in data.seen]
    candidates = np.column_stack([data.last, np.stack(unseen)])
    repeated = np.broadcast_to(np.arange(len(candidates))[:, np.newaxis], candidates.shape)
    np.savez_compressed(folder / "test.npz", user=repeated, item=candidates)
    pair = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    batch = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        network,
        pair,
        dynamo=True,
        opset_version=OPSET,
        input_names=["user", "item"],
        output_names=["logit"],
        dynamic_shapes=(batch, batch),
        verbose=False,
    )
    assert program is not None
    strip_metadata(program.model_proto)
    (folder / "model.onnx").write_bytes(program.model_proto.SerializeToString())


def hit_rate(model: Path, test: Path) -> float:
    """Share of users whose true item is among the best ten of a hundred; ties count against it."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    data = np.load(test)
    feeds = {name: data[name].reshape(-1) for name in ("user", "item")}
    scores = session.run(None, feeds)[0].reshape(data["item"].shape)
    return float(((scores[:, 1:] >= scores[:, :1]).sum(1) < TOP).mean())
