"""The paper's tables on networks that can be trained here.

How to run it, from the root of the repository::

    apt-get install dataset-fashion-mnist
    pip install torch==2.13.0
    pip download --no-deps recbole==1.2.1
    python tools/paper/paper_tables.py --wheel recbole-1.2.1-py3-none-any.whl

It trains what is missing in `build/paper/NETWORK/` (`model.onnx`, `calib.npz`, `test.npz`; your own networks
may be put there instead), quantizes it in every way and writes `build/paper/tables.md`, again after every
table. On a slow machine, `--pairs`, `--samples` and `--test-images` make less of it. Every finished run is
kept in `build/paper/NETWORK/*.json`: an interrupted command goes on when it is given again. The placement is
the paper's: first and last layers in float, weights and ReLU outputs quantized, one scale per tensor.
"""

import argparse
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from paper_format import markdown, percent
from paper_ncf import hit_rate, prepare_neumf
from paper_networks import CALIBRATION, NETWORKS, prepare_network
from train_demo import MEAN, SEED, STD, THREADS

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.config import MethodName
from onnx_lapq.study.comparison import DEFAULT_PAIRS, compare_models
from onnx_lapq.study.comparison_table import Row

PAPER = QuantizationConfig(
    placement="paper",
    first_last="float",
    rounding="nearest",
    preprocessing=Preprocessing(mean=(MEAN,), std=(STD,)),
)
METHODS: tuple[MethodName, ...] = ("minmax", "percentile", "mmse", "kld", "aciq", "lapq")
SIZES = (16, 32, 64, 128, 256, 512)
NCF_PAIRS = ((8, 8), (32, 8), (8, 32))

PAPER_TOP1 = {
    ((8, 4), "lapq"): 68.8,
    ((8, 4), "mmse"): 68.0,
    ((8, 4), "aciq"): 65.5,
    ((8, 3), "lapq"): 66.3,
    ((8, 3), "mmse"): 63.3,
    ((8, 3), "aciq"): 52.5,
    ((4, 4), "lapq"): 60.3,
    ((4, 4), "mmse"): 43.6,
    ((4, 4), "kld"): 31.9,
    ((4, 4), "aciq"): 4.1,
}
"""Top-1 of the paper's ResNet-18 on ImageNet; 69.7 in float."""

PAPER_ABLATION = {"random": (0.1, 7.8), "p=2": (43.6, 57.8), "p=2 + quadratic": (54.1, 60.3)}
"""Top-1 before and after the joint step, ResNet-18 on ImageNet, W4A4 (Table 3)."""


@dataclass(frozen=True)
class Network:
    """A network in its folder, and how many of its calibration samples are used."""

    name: str
    folder: Path
    samples: int

    def rows(self, table: str, runs: Sequence[QuantizationConfig]) -> tuple[Row, list[Row]]:
        """The float model's row, and one for each run."""
        print(f"{self.name}: {table}", flush=True)
        float_row, *rows = compare_models(
            self.folder / "model.onnx",
            self.folder / "calib.npz",
            self.folder / "test.npz",
            [replace(run, samples=min(self.samples, run.samples or self.samples)) for run in runs],
            [],
            self.folder / table,
            lambda done: print(f"  {done}/{1 + len(runs)}", flush=True),
        )
        return float_row, rows


def pair_name(pair: tuple[int, int]) -> str:
    """Bits of weights and activations."""
    return f"{pair[0]}/{pair[1]}"


def methods_table(network: Network, pairs: Sequence[tuple[int, int]]) -> str:
    """Tables 1 and C.1: top-1 (and KL from the float model) of every method at every pair."""
    base = [replace(PAPER, weight_bits=w, activation_bits=a) for w, a in pairs]
    ways = [("lapq, compensated", {"method": "lapq", "rounding": "compensated"})]
    ways = [(method, {"method": method}) for method in METHODS] + ways
    runs = [replace(config, **options) for config in base for _, options in ways]
    float_row, rows = network.rows("methods", runs)
    lines = []
    for index, (label, _) in enumerate(ways):
        line = [label]
        for pair, row in zip(pairs, rows[index :: len(ways)], strict=True):
            quoted = PAPER_TOP1.get((pair, label)) if network.name == "ResNet-18" else None
            line.append(
                f"{percent(row.top1)} ({row.kl:.4f})" + (f" [{quoted}]" if quoted is not None else "")
            )
        lines.append(line)
    heading = f"Tables 1 and C.1, {network.name}: float {percent(float_row.top1)} %"
    return markdown(heading, ["W/A", *map(pair_name, pairs)], lines)


def ablation_table(network: Network) -> str:
    """Table 3: where the joint step starts from, W4A4; calibration loss (the same for all) and top-1."""
    starts = [("random", "random"), ("p=2", "mmse"), ("p=2 + quadratic", "lapq")]
    base = replace(PAPER, weight_bits=4, activation_bits=4, loss="kl")
    runs = [
        replace(base, method=method, optimizer=step) for _, method in starts for step in ("none", "powell")
    ]
    _, rows = network.rows("ablation", runs)
    lines = []
    for index, (label, _) in enumerate(starts):
        before, after = rows[2 * index], rows[2 * index + 1]
        paper = PAPER_ABLATION[label]
        lines.append(
            [
                label,
                f"{before.loss:.4f}",
                f"{after.loss:.4f}",
                percent(before.top1),
                percent(after.top1),
                f"{paper[0]} -> {paper[1]}",
            ]
        )
    columns = ["start", "loss", "after joint", "top-1", "after joint", "paper, ResNet-18 on ImageNet"]
    return markdown(f"Table 3, {network.name}, W4A4: calibration loss and top-1", columns, lines)


def correction_table(networks: Sequence[Network]) -> str:
    """Table 4: LAPQ with and without bias correction, W4A32."""
    base = replace(PAPER, weight_bits=4, activation_bits=32)
    lines = []
    for network in networks:
        runs = [replace(base, bias_correction=correction) for correction in (False, True)]
        float_row, (without, corrected) = network.rows("correction", runs)
        quoted = "29.4 -> 60.2" if network.name == "MobileNet-V2" else "-"
        lines.append(
            [
                network.name,
                percent(float_row.top1),
                f"{percent(without.top1)} ({without.kl:.4f})",
                f"{percent(corrected.top1)} ({corrected.kl:.4f})",
                quoted,
            ]
        )
    columns = ["network", "float", "without", "with", "paper, on ImageNet"]
    return markdown("Table 4, W4A32: top-1 (KL) without and with bias correction", columns, lines)


def sizes_table(network: Network) -> str:
    """Figure B.2: top-1 against the number of calibration samples, W4A4."""
    sizes = [size for size in SIZES if size <= network.samples]
    runs = [replace(PAPER, weight_bits=4, activation_bits=4, samples=size) for size in sizes]
    _, rows = network.rows("sizes", runs)
    cells = [f"{percent(row.top1)} ({row.kl:.4f})" for row in rows]
    heading = f"Figure B.2, {network.name}, W4A4: top-1 (KL) against calibration samples"
    return markdown(heading, ["samples", *map(str, sizes)], [["lapq", *cells]])


def ncf_table(folder: Path) -> str:
    """Table 2: hit rate at 10 of NeuMF among 99 negatives."""
    model, test = folder / "model.onnx", folder / "test.npz"
    base = QuantizationConfig(first_last="8")
    lines = []
    for method in ("mmse", "lapq"):
        line = [method]
        for w, a in NCF_PAIRS:
            output = folder / f"{method}_w{w}a{a}.onnx"
            if not output.exists():
                config = replace(base, method=method, weight_bits=w, activation_bits=a)
                quantize(model, folder / "calib.npz", config).save(output)
            quoted = {"mmse": 33.5, "lapq": 51.0}[method] if (w, a) == (8, 8) else None
            line.append(percent(hit_rate(output, test)) + (f" [{quoted}]" if quoted is not None else ""))
        lines.append(line)
    heading = f"Table 2, NeuMF: hit rate at 10, float {percent(hit_rate(model, test))} [51.5]"
    return markdown(heading, ["W/A", *map(pair_name, NCF_PAIRS)], lines)


def tables(networks: Sequence[Network], neumf: Path, pairs: Sequence[tuple[int, int]]) -> Iterator[str]:
    """All tables, the quick ones first; the ablation and the sizes on the first network alone."""
    if (neumf / "model.onnx").exists():
        yield ncf_table(neumf)
    yield from map(ablation_table, networks[:1])
    yield correction_table(networks)
    yield from map(sizes_table, networks[:1])
    for network in networks:
        yield methods_table(network, pairs)


def versions() -> str:
    """When and with what the tables were made."""
    names = ("onnx-lapq", "onnxruntime", "numpy", "scipy", "torch")
    shown = ", ".join(f"{name} {version(name)}" for name in names)
    now = datetime.now(UTC).date()
    return f"{now}, seed {SEED}, Python {platform.python_version()}, {shown}; [in brackets: the paper's]\n"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The paper's tables on small networks.")
    parser.add_argument("--folder", type=Path, default=Path("build/paper"))
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--wheel", type=Path, help="The RecBole wheel; without it no NeuMF is trained.")
    parser.add_argument(
        "--epochs", type=int, default=3, help="Of the networks on images; NeuMF takes 4 times as many."
    )
    parser.add_argument("--images", type=int, default=20_000, help="That the networks are trained on.")
    parser.add_argument("--samples", type=int, default=CALIBRATION, help="For calibration, at most.")
    parser.add_argument("--test-images", type=int, default=10_000, help="For a network that is trained now.")
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--pairs", nargs="*", default=[pair_name(pair) for pair in DEFAULT_PAIRS])
    return parser.parse_args()


def main() -> None:
    """Train what is missing, run everything, write the tables."""
    arguments = parse_arguments()
    torch.set_num_threads(THREADS)
    networks = []
    for name in arguments.networks:
        folder = arguments.folder / name
        networks.append(Network(name, folder, arguments.samples))
        prepare_network(
            name, folder, arguments.data, arguments.images, arguments.epochs, arguments.test_images
        )
    neumf = arguments.folder / "NeuMF"
    if arguments.wheel is not None:
        prepare_neumf(neumf, arguments.wheel, 4 * arguments.epochs)
    pairs = [(int(w), int(a)) for w, a in (pair.split("/") for pair in arguments.pairs)]
    parts = [versions()]
    for part in tables(networks, neumf, pairs):
        parts.append(part)
        (arguments.folder / "tables.md").write_text("\n".join(parts))
        print(part, flush=True)


if __name__ == "__main__":
    main()
