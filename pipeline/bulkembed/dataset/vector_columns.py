"""Vector forms -> the vector columns of a data file: their names, their Arrow types and their stored values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.records import VectorForm, parse_forms

STORED_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}


def vector_columns(forms: tuple[VectorForm, ...]) -> dict[str, VectorForm]:
    """The forms by column name.

    The first form is `embedding`, and the others are `embedding_<dim>`. A dimension that comes again is `embedding_<dim>_<dtype>`."""
    columns: dict[str, VectorForm] = {}
    for form in forms:
        name = f"embedding_{form.dim}" if columns else "embedding"
        columns[f"{name}_{form.dtype}" if name in columns else name] = form
    return columns


def forms_of(provenance: dict[str, str]) -> dict[str, VectorForm]:
    """The vector columns of a finished dataset, by name."""
    return vector_columns(parse_forms(provenance["vectors"].split(",")))


def vector_type(form: VectorForm) -> pa.DataType:
    """A fixed-size list. Binary vectors are packed: eight signs a byte."""
    return pa.list_(STORED_TYPES[form.dtype], form.dim // 8 if form.dtype == "binary" else form.dim)


def stored_values(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """A vector column as it is stored: (rows, dim), or (rows, dim / 8) bytes of packed signs."""
    column = table[name].combine_chunks()
    flat: npt.NDArray[np.generic] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)
