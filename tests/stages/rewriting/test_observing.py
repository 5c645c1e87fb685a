import numpy as np
import pytest

from onnx_lapq.stages.rewriting.observing import peaks


@pytest.mark.parametrize(
    "ends", [(-np.inf, np.inf), (-0.5, np.inf), (-1.0, 0.25), (0.0, 0.0), (2.0, np.inf), (-np.inf, -2.0)]
)
@pytest.mark.parametrize("shape", [(6, 4, 3, 5), (6, 4, 7), (6, 4)])
def test_peaks_are_those_of_the_chosen_images_cut_off(shape, ends):
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    judges = np.array([True, False, True, False, False, True])
    cut = np.abs(np.clip(images[judges], *ends)).swapaxes(0, 1).reshape(4, -1)
    np.testing.assert_allclose(peaks(images, judges, *ends), cut.max(axis=1), rtol=1e-6)


def test_there_are_no_peaks_without_images():
    np.testing.assert_array_equal(peaks(np.ones((2, 3, 4), np.float32), np.zeros(2, bool)), np.zeros(3))
