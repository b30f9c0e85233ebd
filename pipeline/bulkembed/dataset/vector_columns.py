"""The vector columns of a data file: their Arrow types and their stored values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.forms import vector_columns
from bulkembed.records import VectorForm, parse_forms

STORED_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}


def forms_of(provenance: dict[str, str]) -> dict[str, VectorForm]:
    """The vector columns of a finished dataset, by name."""
    return vector_columns(parse_forms(provenance["vectors"].split(",")))


def vector_type(form: VectorForm) -> pa.DataType:
    """A fixed-size list. Binary vectors are packed: eight signs a byte."""
    return pa.list_(STORED_TYPES[form.dtype], form.dim // 8 if form.dtype == "binary" else form.dim)


def vector_array(values: npt.NDArray[np.generic], kind: pa.FixedSizeListType) -> pa.Array:
    """A vector column of stored values, the inverse of `stored_values`. `kind`: see `vector_type`."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind.value_type), type=kind)


def stored_values(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """A vector column as it is stored: (rows, dim), or (rows, dim / 8) bytes of packed signs."""
    column = table[name].combine_chunks()
    flat: npt.NDArray[np.generic] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)
