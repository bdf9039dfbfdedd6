"""Fills `torch._dynamo.utils.counters` while Flashpoint stands in for torch.compile.

Programs and tests look there for graph breaks and graphs.
"""

from __future__ import annotations

import sys


def count(entries: int, graphs: int, operators: int, breaks: list[str]) -> None:
    """Adds what one call has recorded: entries, those with operators, operators, messages of graph breaks.

    frames counts entries (the call's own, and one behind each break), as TorchDynamo counts the frames that
    it converts; stats counts graphs and the operators in them; graph_break counts by message.
    """
    utils = sys.modules.get("torch._dynamo.utils")
    if utils is None:
        return
    counters = utils.counters
    counters["frames"]["total"] += max(entries, 1)
    if entries:
        counters["frames"]["ok"] += entries
    if graphs:
        counters["stats"]["unique_graphs"] += graphs
        counters["stats"]["calls_captured"] += operators
    for message in breaks:
        counters["graph_break"][message] += 1
