"""Flashpoint: a graph-capture JIT for PyTorch.

`flashpoint.compile(fn_or_module)` is used as `torch.compile` is. The first call runs the program for real
while it is recorded; later calls replay the recording when its guards hold.
"""

from flashpoint import _versions

_versions.check()

from flashpoint import code_state, decorators, higher_order, registering, store, tracer  # noqa: E402
from flashpoint.compiling import compile  # noqa: E402
from flashpoint.configuration import config  # noqa: E402
from flashpoint.decorators import (  # noqa: E402
    allow_in_graph,
    assume_constant_result,
    disable,
    graph_break,
    substitute_in_graph,
)
from flashpoint.explaining import Explanation, explain  # noqa: E402
from flashpoint.fx.background import wait_for_backends  # noqa: E402
from flashpoint.installing import install, installed, uninstall  # noqa: E402
from flashpoint.optimized_module import OptimizedModule  # noqa: E402
from flashpoint.reporting import report  # noqa: E402
from flashpoint.scope import current_scope_id, enter_new_scope  # noqa: E402
from flashpoint.stance import set_stance  # noqa: E402
from flashpoint.state import counters, reset, reset_counters  # noqa: E402

registering.register()
higher_order.register()
decorators.follow_torch()

__version__ = "0.1.0"
__all__ = [
    "Explanation",
    "OptimizedModule",
    "allow_in_graph",
    "assume_constant_result",
    "code_state",
    "compile",
    "config",
    "counters",
    "current_scope_id",
    "disable",
    "enter_new_scope",
    "explain",
    "graph_break",
    "install",
    "installed",
    "report",
    "reset",
    "reset_counters",
    "set_stance",
    "store",
    "substitute_in_graph",
    "tracer",
    "uninstall",
    "wait_for_backends",
]
