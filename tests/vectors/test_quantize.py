import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import EmbeddingError
from bulkembed.records import VectorForm
from bulkembed.vectors.matryoshka import Vectors, cut_vectors
from bulkembed.vectors.quantize import decode_vectors, encode_vectors, int8_ranges_from_text, int8_ranges_to_text, measure_int8_ranges

SEEDS = st.integers(0, 2**32 - 1)


def random(rows: int, seed: int, width: int = 64) -> Vectors:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@given(st.integers(0, 20), st.integers(1, 64), st.sampled_from(["float32", "float16"]), SEEDS)
def test_a_float_form_is_the_renormalised_slice(rows: int, dim: int, dtype: str, seed: int) -> None:
    full = random(rows, seed)
    found = encode_vectors(full, VectorForm(dim, dtype), None)  # type: ignore[arg-type]
    assert found.shape == (rows, dim)
    assert found.dtype == dtype
    wanted = full[:, :dim].astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found.astype(np.float64), wanted, atol=1e-6 if dtype == "float32" else 1e-3)


@given(st.integers(2, 40), st.integers(8, 64), SEEDS)
def test_int8_is_right_within_half_a_step_inside_its_ranges(rows: int, dim: int, seed: int) -> None:
    full, form = random(rows, seed), VectorForm(dim, "int8")
    int8_ranges = measure_int8_ranges(full, dim)
    found = decode_vectors(encode_vectors(full, form, int8_ranges), form, int8_ranges)
    step = (int8_ranges[1] - int8_ranges[0]) / 255
    assert np.all(np.abs(found - cut_vectors(full, dim)) <= step / 2 + 1e-6)


def test_int8_outside_its_ranges_is_clipped() -> None:
    form = VectorForm(2, "int8")
    int8_ranges = np.array([[-0.5, -0.5], [0.5, 0.5]], np.float32)
    assert encode_vectors(np.array([[1, 0], [-1, 0]], np.float32), form, int8_ranges)[:, 0].tolist() == [127, -128]


def test_int8_without_ranges_is_an_error() -> None:
    with pytest.raises(EmbeddingError, match="no int8 ranges"):
        encode_vectors(random(1, 0), VectorForm(8, "int8"), None)


@given(st.integers(0, 20), st.integers(1, 8).map(lambda octets: octets * 8), SEEDS)
def test_binary_is_the_signs_first_component_first(rows: int, dim: int, seed: int) -> None:
    full, form = random(rows, seed), VectorForm(dim, "binary")
    packed = encode_vectors(full, form, None)
    assert packed.shape == (rows, dim // 8)
    assert packed.dtype == np.uint8
    found = decode_vectors(packed, form, None)
    assert np.array_equal(found > 0, full[:, :dim] > 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for row in range(rows):
        assert (int(packed[row, 0]) >> 7 == 1) == (full[row, 0] > 0)


@given(st.integers(1, 64), SEEDS)
def test_ranges_survive_as_text(dim: int, seed: int) -> None:
    int8_ranges = {"embedding": measure_int8_ranges(random(5, seed), dim)}
    found = int8_ranges_from_text(int8_ranges_to_text(int8_ranges) | {"model": "m"})
    assert list(found) == ["embedding"]
    np.testing.assert_array_equal(found["embedding"], int8_ranges["embedding"])
