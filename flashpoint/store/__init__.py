"""The store: what was compiled, kept on disk for the next process.

`isolation_context` and `isolation_key` name what stored entries depend on outside the program.
"""

from __future__ import annotations

from flashpoint.store.context import IsolationSchema, isolation_context, isolation_key

__all__ = ["IsolationSchema", "isolation_context", "isolation_key"]
