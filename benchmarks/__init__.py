"""The benchmarks: `python -m benchmarks` prints one JSON object per line.

Each line compares Flashpoint with eager on the same work, and with torch.compile(backend="eager") if asked
to: calls are interleaved in one process, medians and quartiles are given, and how many calls ran a recording.

To add one: a module with a function `run(options) -> Iterator[dict]`, and a row in BENCHMARKS of __main__.py.
"""

import os

# First calls are to be recorded; what a filled store saves is measured by `warm`.
os.environ.setdefault("FLASHPOINT_RECORDINGS", "0")
