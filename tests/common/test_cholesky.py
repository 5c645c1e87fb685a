from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnx_lapq.common.cholesky import solve_rows, upper_factor


def positive(size: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((2 * size, size)).astype(np.float32)
    return rows.T @ rows / (2 * size)


@pytest.mark.parametrize("size", [1, 5, 300])
def test_the_factor_is_a_root(size):
    matrix = positive(size)
    upper = np.triu(upper_factor(matrix))
    np.testing.assert_allclose(upper.T @ upper, matrix, atol=1e-5)


def test_damping_is_added_to_the_diagonal():
    matrix = positive(20)
    damped = matrix + 0.5 * np.eye(20, dtype=np.float32)
    np.testing.assert_array_equal(np.triu(upper_factor(matrix, 0.5)), np.triu(upper_factor(damped)))


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 7), (40, 300)])
def test_rows_are_solved(rows, size):
    matrix, wanted = positive(size), np.random.default_rng(1).standard_normal((rows, size))
    found = solve_rows(upper_factor(matrix, 0.1), wanted.astype(np.float32))
    np.testing.assert_allclose(found @ (matrix + 0.1 * np.eye(size)), wanted, atol=1e-4)


def test_what_is_given_stays():
    matrix, wanted = positive(9), np.ones((2, 9), np.float32)
    before = matrix.copy()
    factor = upper_factor(matrix)
    kept = factor.copy()
    solve_rows(factor, wanted)
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_array_equal(factor, kept)
    np.testing.assert_array_equal(wanted, 1)


def test_strides_do_not_matter():
    matrix, wanted = positive(9), np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32).T
    turned = matrix[::-1, ::-1]
    np.testing.assert_array_equal(upper_factor(turned), upper_factor(turned.copy()))
    factor = upper_factor(matrix)
    np.testing.assert_array_equal(solve_rows(factor, wanted), solve_rows(factor, wanted.copy()))


def test_a_matrix_that_is_not_positive_definite_is_refused():
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        upper_factor(-positive(4))


def test_threads_get_what_one_gets():
    matrices = [positive(200, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(upper_factor, matrices))
    for found, matrix in zip(together, matrices, strict=True):
        np.testing.assert_array_equal(found, upper_factor(matrix))
