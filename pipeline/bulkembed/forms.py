"""Vector forms by column name, and which stored form gives another one without the model. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bulkembed.records import Dtype, VectorForm

# The stored floats that a form can be cut from. A float32 of float16 values would only pretend to be exact.
CUT_FROM: dict[Dtype, tuple[Dtype, ...]] = {
    "float32": ("float32",),
    "float16": ("float32", "float16"),
    "int8": ("float32", "float16"),
    "binary": ("float32", "float16"),
}


def vector_columns(forms: Iterable[VectorForm]) -> dict[str, VectorForm]:
    """The forms by column name.

    The first form is `embedding`, and the others are `embedding_<dim>`. A dimension that comes again is `embedding_<dim>_<dtype>`."""
    columns: dict[str, VectorForm] = {}
    for form in forms:
        name = f"embedding_{form.dim}" if columns else "embedding"
        columns[f"{name}_{form.dtype}" if name in columns else name] = form
    return columns


def column_to_cut(form: VectorForm, stored: dict[str, VectorForm]) -> str | None:
    """The column that `form` is best cut from: float32 before float16, then the fewest dimensions. None where there is none."""
    usable = {name: other for name, other in stored.items() if other.dtype in CUT_FROM[form.dtype] and other.dim >= form.dim}
    return min(usable, key=lambda name: (usable[name].dtype != "float32", usable[name].dim), default=None)
