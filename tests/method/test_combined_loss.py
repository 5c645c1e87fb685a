"""The loss of a run sees every part of every output, and none of them can die unseen."""

import numpy as np
import pytest

from onnx_lapq.errors import ConfigError
from onnx_lapq.method.combined_loss import (
    Reference,
    combine,
    combine_blocks,
    describe,
    named_losses,
    parts_for,
)
from onnx_lapq.method.losses import make_loss
from onnx_lapq.method.parts import Part, choose_parts

RNG = np.random.default_rng(0)
ALL = slice(0, 16)
BOXES = (320 + 90 * RNG.standard_normal((16, 4, 40))).astype(np.float32)
SCORES = (RNG.uniform(size=(16, 3, 40)) ** 8).astype(np.float32)
HEAD = np.concatenate([BOXES, SCORES], axis=1)
EMBEDDING = RNG.standard_normal((16, 64)).astype(np.float32)
LOGITS = 4 * RNG.standard_normal((16, 10)).astype(np.float32)
OUTPUTS = {"head": HEAD, "embedding": EMBEDDING, "logits": LOGITS}
ENDS = {"head": frozenset({"Mul", "Sigmoid"}), "embedding": frozenset({"Div"}), "logits": frozenset({"Gemm"})}


def loss_of(outputs: dict[str, np.ndarray]) -> float:
    loss = combine(choose_parts(OUTPUTS, ENDS), OUTPUTS)
    return float(loss.by_sample(list(outputs.values()), ALL).mean())


def with_dead(name: str, rows: slice) -> dict[str, np.ndarray]:
    """The outputs with some rows the same for all samples."""
    dead = OUTPUTS[name].copy()
    dead[:, rows] = dead[:, rows].mean(axis=(0, *range(2, dead.ndim)), keepdims=True)
    return {**OUTPUTS, name: dead}


@pytest.mark.parametrize(
    ("name", "rows"),
    [("head", slice(0, 4)), ("head", slice(4, 7)), ("embedding", slice(None)), ("logits", slice(None))],
)
def test_a_part_that_says_nothing_any_more_costs_its_share(name, rows):
    assert loss_of(OUTPUTS) == pytest.approx(0, abs=1e-12)
    assert loss_of(with_dead(name, rows)) == pytest.approx(1 / 4, rel=0.1)


def test_one_box_coordinate_cannot_die_unseen():
    assert loss_of(with_dead("head", slice(2, 3))) == pytest.approx(1 / 16, rel=0.1)


def test_a_part_alone_is_as_its_formula_has_it():
    loss = combine([Part("logits", "kl", 1)], {"logits": LOGITS})
    noisy = LOGITS + 0.1
    noisy[:, 0] += 1
    np.testing.assert_array_equal(loss.by_sample([noisy], ALL), make_loss("kl", [LOGITS])([noisy], ALL))
    assert loss.name == "kl"


def test_a_large_row_that_hardly_varies_is_measured_by_what_varies():
    steady = np.stack([100 + EMBEDDING[:, 0], EMBEDDING[:, 1]], axis=1)
    loss = combine([Part("y", "row-mse", 1)], {"y": steady})
    dead = np.broadcast_to(steady.mean(axis=0), steady.shape)
    assert loss.by_sample([dead], ALL).mean() == pytest.approx(1, rel=0.01)


def test_a_row_that_is_all_but_dead_does_not_outweigh_the_others():
    nearly = np.stack([EMBEDDING[:, 0], 1e-9 * EMBEDDING[:, 1]], axis=1)
    loss = combine([Part("y", "row-mse", 1)], {"y": nearly})
    assert loss.by_sample([nearly + 0.01], ALL).mean() < 0.2


def test_padded_positions_do_not_count():
    hidden = RNG.standard_normal((16, 6, 8)).astype(np.float32)
    mask = np.arange(6) < RNG.integers(1, 6, (16, 1))
    noisy = np.where(mask[..., None], hidden, np.arange(8, dtype=np.float32))
    for part in (Part("h", "direction", 2), Part("h", "mse"), Part("h", "row-mse", 2), Part("h", "kl", 2)):
        assert combine([part], {"h": hidden}, mask=mask).by_sample([noisy], ALL).max() < 1e-12
        assert combine([part], {"h": hidden}).by_sample([noisy], ALL).max() > 0.01


def test_the_direction_of_a_vector_and_its_length_are_seen_alike_for_short_and_long_ones():
    loss = combine([Part("y", "direction", 1)], {"y": EMBEDDING})
    turned = np.roll(EMBEDDING, 1, axis=1)
    cosine = (EMBEDDING * turned).sum(1) / np.square(EMBEDDING).sum(1)
    np.testing.assert_allclose(loss.by_sample([turned], ALL), 1 - cosine, rtol=1e-5)
    np.testing.assert_allclose(loss.by_sample([1.1 * EMBEDDING], ALL), 0.005, rtol=1e-4)


def test_an_option_names_losses_for_all_outputs_or_for_some():
    every = parts_for("mse", OUTPUTS, ENDS)
    assert [(part.output, part.loss) for part in every] == [(name, "mse") for name in OUTPUTS]
    some = parts_for("head=mse,logits=direction", OUTPUTS, ENDS)
    assert {(part.output, part.loss) for part in some} == {
        ("head", "mse"),
        ("logits", "direction"),
        ("embedding", "direction"),
    }
    assert named_losses("a=b=kl") == {"a=b": "kl"}


@pytest.mark.parametrize("option", ["hinge", "head=hinge", "head=", ""])
def test_a_loss_that_is_not_known_is_refused(option):
    with pytest.raises(ConfigError, match=r"there is no loss .* OUTPUT=NAME"):
        named_losses(option)


def test_an_output_with_two_losses_is_refused():
    with pytest.raises(ConfigError, match="names an output twice"):
        named_losses("head=mse,logits=kl,head=direction")


def test_an_output_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="loss names an output 'heads'; the outputs are head, "):
        parts_for("heads=mse", OUTPUTS, ENDS)


def test_what_is_seen_is_said_in_one_line():
    said = describe(choose_parts(OUTPUTS, ENDS))
    assert said == (
        "squared error by row of `head`[0:4]; binary KL of `head`[4:7]; direction and length of `embedding`; "
        "KL of `logits`"
    )
    assert describe([Part("y", "mse", 1, (0, 2)), Part("y", "mse", 1, (1,))]) == (
        "squared error of `y`[0,2], `y`[1]"
    )


@pytest.mark.parametrize("name", ["mse", "row-mse", "binary-kl"])
def test_samples_of_several_shapes_are_measured_by_the_same_scale_and_count_alike(name):
    whole = (RNG.uniform(size=(43, 12, 3)) * [1, 0.5, 0.1]).astype(np.float32)
    noisy, part = whole + np.float32(0.01), Part("y", name, 2)
    alone = combine([part], {"y": whole})
    blocks = [Reference({"y": one}, None, None) for one in np.split(whole, [2, 42])]
    losses = combine_blocks([part], blocks)
    found = [
        loss.by_sample([one], slice(0, len(one)))
        for loss, one in zip(losses, np.split(noisy, [2, 42]), strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(found), alone.by_sample([noisy], slice(0, 43)), rtol=1e-6)
    assert [loss.flat for loss in losses] == pytest.approx([alone.flat] * 3, rel=1e-6)


def test_what_outputs_that_never_change_cost_is_that_of_samples_of_all_shapes():
    blocks = [Reference({"y": RNG.standard_normal((1, size, 8))}, None, None) for size in range(3, 12)]
    for part in (Part("y", "mse"), Part("y", "row-mse", 2)):
        assert [loss.flat for loss in combine_blocks([part], blocks)] == pytest.approx([1] * 9, rel=0.2)
    (flat,) = {loss.flat for loss in combine_blocks([Part("y", "kl", 1)], blocks)}
    assert flat > 0.1
