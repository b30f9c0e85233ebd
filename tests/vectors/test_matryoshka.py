import numpy as np
import pytest

from bulkembed.errors import EmbeddingError
from bulkembed.vectors.matryoshka import cosines, cut_vectors, usable_rows


def test_cut_leaves_its_input_alone() -> None:
    full = np.full((2, 4), 3.0, np.float32)
    cut_vectors(full, 4)
    assert np.all(full == 3.0)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error(value: float) -> None:
    vectors = np.ones((3, 8), np.float32)
    vectors[1] = value
    with pytest.raises(EmbeddingError, match="row 1 "):
        cut_vectors(vectors, 8)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-20, 1e30])
def test_a_row_is_usable_if_all_its_slices_have_a_direction(value: float) -> None:
    vectors = np.ones((3, 8), np.float32)
    vectors[1, :4] = value
    assert usable_rows(vectors, [8, 4]).tolist() == [True, False, True]
    assert usable_rows(vectors).tolist() == [True, value in (0.0, 1e-20), True]


def test_cosines_compare_row_by_row() -> None:
    a = np.array([[1, 0], [1, 0], [1, 1]], np.float32)
    b = np.array([[2, 0], [0, 3], [-1, -1]], np.float32)
    np.testing.assert_allclose(cosines(a, b), [1, 0, -1], atol=1e-12)
