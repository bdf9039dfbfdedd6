"""What the database cannot tell apart by value, and what is known to break."""

from __future__ import annotations

# Their results are memory nobody filled.
UNDEFINED_VALUES = frozenset(
    {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
)
