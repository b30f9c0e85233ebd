import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import EmbeddingError
from bulkembed.records import VectorForm
from bulkembed.vectors import matryoshka
from bulkembed.vectors.matryoshka import Vectors, cut, decode, encode

SEEDS = st.integers(0, 2**32 - 1)


def random(rows: int, seed: int, width: int = 64) -> Vectors:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@given(st.integers(0, 20), st.integers(1, 64), st.sampled_from(["float32", "float16"]), SEEDS)
def test_a_float_form_is_the_renormalised_slice(rows: int, dim: int, dtype: str, seed: int) -> None:
    full = random(rows, seed)
    found = encode(full, VectorForm(dim, dtype), None)  # type: ignore[arg-type]
    assert found.shape == (rows, dim)
    assert found.dtype == dtype
    wanted = full[:, :dim].astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found.astype(np.float64), wanted, atol=1e-6 if dtype == "float32" else 1e-3)


@given(st.integers(2, 40), st.integers(8, 64), SEEDS)
def test_int8_is_right_within_half_a_step_inside_its_ranges(rows: int, dim: int, seed: int) -> None:
    full, form = random(rows, seed), VectorForm(dim, "int8")
    ranges = matryoshka.ranges_of(full, dim)
    found = decode(encode(full, form, ranges), form, ranges)
    step = (ranges[1] - ranges[0]) / 255
    assert np.all(np.abs(found - cut(full, dim)) <= step / 2 + 1e-6)


def test_int8_outside_its_ranges_is_clipped() -> None:
    form = VectorForm(2, "int8")
    ranges = np.array([[-0.5, -0.5], [0.5, 0.5]], np.float32)
    assert encode(np.array([[1, 0], [-1, 0]], np.float32), form, ranges)[:, 0].tolist() == [127, -128]


def test_int8_without_ranges_is_an_error() -> None:
    with pytest.raises(EmbeddingError, match="no ranges"):
        encode(random(1, 0), VectorForm(8, "int8"), None)


@given(st.integers(0, 20), st.integers(1, 8).map(lambda octets: octets * 8), SEEDS)
def test_binary_is_the_signs_first_component_first(rows: int, dim: int, seed: int) -> None:
    full, form = random(rows, seed), VectorForm(dim, "binary")
    packed = encode(full, form, None)
    assert packed.shape == (rows, dim // 8)
    assert packed.dtype == np.uint8
    found = decode(packed, form, None)
    assert np.array_equal(found > 0, full[:, :dim] > 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for row in range(rows):
        assert (int(packed[row, 0]) >> 7 == 1) == (full[row, 0] > 0)


@given(st.integers(1, 64), SEEDS)
def test_ranges_survive_as_text(dim: int, seed: int) -> None:
    ranges = {"embedding": matryoshka.ranges_of(random(5, seed), dim)}
    found = matryoshka.ranges_from_text(matryoshka.ranges_to_text(ranges) | {"model": "m"})
    assert list(found) == ["embedding"]
    np.testing.assert_array_equal(found["embedding"], ranges["embedding"])


def test_cut_leaves_its_input_alone() -> None:
    full = np.full((2, 4), 3.0, np.float32)
    cut(full, 4)
    assert np.all(full == 3.0)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error(value: float) -> None:
    vectors = np.ones((3, 8), np.float32)
    vectors[1] = value
    with pytest.raises(EmbeddingError, match="row 1 "):
        cut(vectors, 8)
