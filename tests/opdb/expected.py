"""What the database cannot tell apart by value, and what breaks because it must or has no rule."""

from __future__ import annotations

# Their results are memory nobody filled.
UNDEFINED_VALUES = frozenset(
    {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
)

# Equal to rounding only: LAPACK chooses its kernels by the alignment of memory, eagerly too.
ROUNDED = frozenset({"linalg.lstsq"})

# Operators with samples that break, and why. All samples of every other operator must run compiled.
_DATA = "the result, or a branch on the way to it, is a tensor's value as a Python value"
_SPARSE = "sparse tensors have no place in a graph"
_STORAGE = "the storage of a tensor is resized"
# Wherever the Python code of an operator warns, it breaks: warnings.warn has no rule.
BREAKING_CALLS = ("_warnings.warn",)
BREAKS = {
    "allclose": _DATA,
    "equal": _DATA,
    "item": _DATA,
    "nn.functional.gaussian_nll_loss": _DATA,
    "sparse.mm": _SPARSE,
    "sparse.sampled_addmm": _SPARSE,
    "to_sparse": _SPARSE,
    "lu": _STORAGE + " by its out variant",
    "resize_": _STORAGE,
    "resize_as_": _STORAGE,
    "nn.functional.embedding": "max_norm writes to the table before an index may raise",
    "nn.functional.embedding_bag": "max_norm writes to the table before an index may raise",
    "torch._scaled_mm_v2": "takes lists of enumeration members",
}
