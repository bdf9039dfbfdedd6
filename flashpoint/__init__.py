"""Flashpoint: a graph-capture JIT for PyTorch."""

import torch  # noqa: F401  (loads the libraries that _C links against)

from flashpoint import _C  # noqa: F401
