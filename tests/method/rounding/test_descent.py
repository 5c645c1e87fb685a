import numpy as np

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.rounding.descent import descended

GRID = Grid(bits=3, signed=True)


def test_each_code_goes_to_its_minimum_in_turn():
    random = np.random.default_rng(0)
    x = random.standard_normal((300, 70)) @ random.standard_normal((70, 70))
    covariance = (x.T @ x / 300).astype(np.float32)
    target = random.standard_normal((4, 70)).astype(np.float32)
    steps = np.full_like(target, 0.4)
    codes = np.clip(np.rint(target / steps), GRID.qmin, GRID.qmax)

    def errors(codes: np.ndarray) -> np.ndarray:
        apart = codes * steps - target
        return np.einsum("cj,cj->c", apart @ covariance, apart)

    expected = codes.copy()
    for column in range(70):
        tried = []
        for code in range(GRID.qmin, GRID.qmax + 1):
            expected[:, column] = code
            tried.append(errors(expected))
        expected[:, column] = GRID.qmin + np.argmin(tried, axis=0)
    np.testing.assert_array_equal(descended(codes, steps, GRID, target, covariance), expected)
    assert (errors(expected) < errors(codes)).all()
