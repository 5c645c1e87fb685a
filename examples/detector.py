"""Gate a detector by its mean average precision: ``--metric detector:mean_precision``.

    python examples/detector.py
    onnx-lapq detector.onnx detector_calib.npz -o detector_w8a8.onnx --test detector_test.npz \\
        --metric detector:mean_precision --max-drop 0.02

The detector finds bright squares; `decode` and `mean_precision` are what a real one needs as well.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnx_lapq
from onnx_lapq import QuantizationConfig
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.study.metric import Metric
from onnx_lapq.study.scores import evaluate_models

SIZE, SQUARE, WINDOW, MOST = 32, 6, 9, 3


def decode(head):
    """Boxes of one image, the surest first: [found, 5] of x1, y1, x2, y2, score, from a head [5, anchors]."""
    x, y, w, h, score = head
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2, score], axis=1)
    boxes = boxes[score > 0.1]
    boxes, kept = boxes[np.argsort(-boxes[:, 4])], []
    while len(boxes):
        kept.append(boxes[0])
        boxes = boxes[1:][overlap(boxes[0], boxes[1:]) < 0.45]
    return np.array(kept).reshape(-1, 5)


def find_boxes(outputs):
    """Boxes of one image, for the page of ``--report``."""
    return decode(outputs["head"])


def overlap(one, many):
    """Intersection over union of a box with others."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:4], many[:, 2:4])
    both = np.clip(high - low, 0, None).prod(1)
    areas = (many[:, 2:4] - many[:, :2]).prod(1) + (one[2:4] - one[:2]).prod()
    return both / (areas - both)


def mean_precision(outputs, reference, labels):
    """Average precision at an overlap of 0.5, image by image: [N]; without labels, of what float finds."""
    found = [decode(head) for head in outputs["head"]]
    if labels is None:
        wanted = [decode(head) for head in reference["head"]]
    else:
        wanted = [boxes[boxes[:, 2] > 0] for boxes in labels]
    return [average_precision(boxes, true) for boxes, true in zip(found, wanted, strict=True)]


def average_precision(found, wanted):
    """Mean of the precision at each box that is right; a true box counts once."""
    left, hits = list(wanted), []
    for box in found:
        match = [number for number, true in enumerate(left) if overlap(true, box[np.newaxis])[0] > 0.5]
        hits.append(bool(match))
        if match:
            left.pop(match[0])
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[np.array(hits, bool)].sum() / max(len(wanted), 1)) if len(wanted) else 1.0


def pictures(count, seed):
    """Grey images of one to three bright squares, and their boxes, int [count, 3, 4], padded with zeros."""
    random = np.random.default_rng(seed)
    images = random.uniform(0, 0.1, (count, 1, SIZE, SIZE)).astype(np.float32)
    boxes = np.zeros((count, MOST, 4), np.int64)
    for image, found in zip(images, boxes, strict=True):
        corners = [(x, y) for x in (2, 12, 22) for y in (2, 12, 22)]
        for number, corner in enumerate(random.permutation(corners)[: random.integers(1, MOST + 1)]):
            x, y = corner + random.integers(-2, 3, 2)
            image[0, y : y + SQUARE, x : x + SQUARE] += random.uniform(0.7, 0.9)
            found[number] = x, y, x + SQUARE, y + SQUARE
    return images, boxes


def detector():
    """A head [N, 5, anchors]: the centre of the mass in each window, the size of a square, and a score."""
    offsets = np.arange(WINDOW, dtype=np.float32) - WINDOW // 2
    mass = np.ones((WINDOW, WINDOW), np.float32) / SQUARE**2
    moments = [mass * offsets, mass * offsets[:, np.newaxis], 0 * mass, 0 * mass, 20 * mass]
    places = np.tile(np.arange(SIZE, dtype=np.float32), (SIZE, 1)).reshape(-1)
    grid = np.stack([places, np.sort(places), *np.full((2, SIZE**2), SQUARE)])[np.newaxis]
    constants = {
        "filters": np.stack(moments)[:, np.newaxis],
        "bias": np.array([0, 0, 0, 0, -13], np.float32),
        "flat": np.array([0, 5, -1]),
        "grid": grid.astype(np.float32),
        "parts": np.array([4, 1]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "filters", "bias"], ["maps"], "filter", pads=[WINDOW // 2] * 4),
        helper.make_node("Reshape", ["maps", "flat"], ["rows"], "reshape"),
        helper.make_node("Split", ["rows", "parts"], ["moved", "logit"], "split", axis=1),
        helper.make_node("Add", ["moved", "grid"], ["boxes"], "decode"),
        helper.make_node("Sigmoid", ["logit"], ["score"], "sure"),
        helper.make_node("Concat", ["boxes", "score"], ["head"], "join", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("head", onnx.TensorProto.FLOAT, ["N", 5, SIZE**2])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    onnx.save(detector(), "detector.onnx")
    for name, count in (("calib", 64), ("test", 64)):
        images, boxes = pictures(count, seed=len(name))
        np.savez(f"detector_{name}.npz", image=images, labels=boxes)
    config = QuantizationConfig(max_evaluations=20)
    report = onnx_lapq.quantize("detector.onnx", "detector_calib.npz", config).save("detector_w8a8.onnx")
    metric = Metric("mean precision", mean_precision)
    files = ["detector.onnx", report.output.path]
    before, after = evaluate_models(files, "detector_test.npz", Preprocessing(), metric=metric)
    print(f"mean average precision: {before.metric:.4f} -> {after.metric:.4f}")
