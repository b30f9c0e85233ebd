import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EmbeddingError
from pipeline.matryoshka import cut


@given(st.integers(0, 20), st.integers(1, 64), st.sampled_from(["float32", "float16"]), st.integers(0, 2**32 - 1))
def test_cut_is_the_renormalised_slice(rows: int, dim: int, dtype: str, seed: int) -> None:
    full = np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)
    found = cut(full, dim, dtype)
    assert found.shape == (rows, dim)
    assert found.dtype == dtype
    wanted = full[:, :dim].astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6 if dtype == "float32" else 1e-3)


def test_cut_leaves_its_input_alone() -> None:
    full = np.full((2, 4), 3.0, np.float32)
    cut(full, 4, "float32")
    assert np.all(full == 3.0)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error(value: float) -> None:
    vectors = np.ones((3, 8), np.float32)
    vectors[1] = value
    with pytest.raises(EmbeddingError, match="document 1 "):
        cut(vectors, 8, "float32")
