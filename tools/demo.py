"""Eight Hugging Face architectures with random weights, compiled, checked against eager and timed.

    make demo                       all eight at base or small size, one thread
    make demo ARGS="--tiny"         tiny sizes, seconds
    make demo ARGS="--help"         choose models, leave torch.compile out, JSON lines, fill README.md

Per model: every result is compared with eager's in all its fields, caches included, on inputs that the
compiled model has not seen. Times are of one process: the first call of a fresh compiled model beside the
first call of a fresh eager model (a call of another instance warms the process up), then interleaved calls.
Exit status 1 if a result differs or a call fails.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # run as a file: the tree is not on the path yet
    sys.path.append(str(ROOT))

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("FLASHPOINT_RECORDINGS", "0")  # first calls are to be recorded, not loaded

import torch  # noqa: E402

import flashpoint  # noqa: E402
from flashpoint.explaining import inspect_compiled  # noqa: E402
from tools.compare import differences  # noqa: E402
from tools.models import ARCHITECTURES, DEMO, Inputs, build  # noqa: E402

BEGIN, END = "<!-- demo:begin (written by `make demo ARGS=--write-readme`) -->", "<!-- demo:end -->"


@dataclass
class Row:
    """What was measured for one model. Times in ms, medians; ratios are medians of pairs, over eager."""

    model: str
    parameters: int = 0
    eager_ms: float | None = None
    first: float | None = None
    torch_compile_first: float | None = None
    steady: float | None = None
    torch_compile_steady: float | None = None
    graphs: int | None = None
    nodes: int | None = None
    guards: int | None = None
    breaks: int | None = None
    calls: int = 0
    hits: int = 0
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def replayed(self) -> str:
        return f"{self.hits}/{self.calls}"


def timed(call: Callable[..., Any], inputs: Inputs) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(**inputs)
    return time.perf_counter() - start, result


def ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Median of first / second."""
    return statistics.median(one / other for one, other in pairs)


class Measurement:
    """Fills one Row. Inputs are never used twice: each step takes the next seed."""

    def __init__(self, row: Row, args: argparse.Namespace, say: Callable[[str], None]) -> None:
        self.row = row
        self.args = args
        self.say = say
        self.seed = 0
        say("building")
        make_model, self.make_inputs = build(row.model, tiny=args.tiny)
        self.model = make_model()
        self.row.parameters = sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def ours(self) -> None:
        self.say("first calls")
        eager, compiled = self.first_calls()
        self.say("steady state")
        self.steady(eager, compiled)
        told = inspect_compiled(compiled)
        self.row.graphs, self.row.nodes = told.graph_count, told.node_count
        self.row.guards, self.row.breaks = len(told.guards), len(told.breaks)
        self.row.notes += [str(found).replace("\n", ";") for found in told.breaks]
        if told.dropped is not None:
            self.row.notes.append(f"last recording not kept: {told.dropped}")

    @torch.no_grad()
    def theirs(self) -> None:
        """The same pairs for torch.compile. Its results are not checked: it is the peer, not the subject."""
        torch._dynamo.reset()
        eager, compiled = copy.deepcopy(self.model), torch.compile(copy.deepcopy(self.model), backend="eager")
        self.model(**self.next_inputs())
        inputs = self.next_inputs()
        base = timed(eager, inputs)[0]
        self.row.torch_compile_first = timed(compiled, inputs)[0] / base
        pairs = []
        for turn in range(self.args.rounds + 1):
            inputs = self.next_inputs()
            base = timed(eager, inputs)[0]
            pair = timed(compiled, inputs)[0], base
            if turn > 0:
                pairs.append(pair)
        self.row.torch_compile_steady = ratio(pairs)

    def next_inputs(self) -> Inputs:
        self.seed += 1
        return self.make_inputs(self.seed)

    def check(self, when: str, expected: Any, actual: Any) -> None:
        found = differences(expected, actual, atol=ARCHITECTURES[self.row.model].atol)
        self.row.failures += [f"{when}: {line}" for line in found]

    def first_calls(self) -> tuple[torch.nn.Module, flashpoint.OptimizedModule]:
        pairs: list[tuple[float, float]] = []
        times: list[float] = []
        for turn in range(self.args.repeats):
            eager = copy.deepcopy(self.model)
            compiled = flashpoint.compile(copy.deepcopy(self.model), backend="eager")
            self.model(**self.next_inputs())  # one-time work of torch and transformers, CPU caches
            inputs = self.next_inputs()
            runs = [lambda m=eager, i=inputs: timed(m, i), lambda m=compiled, i=inputs: timed(m, i)]
            if turn % 2:  # neither is always the first
                second, first = runs[1](), runs[0]()
            else:
                first, second = runs[0](), runs[1]()
            self.check("first call", first[1], second[1])
            pairs.append((second[0], first[0]))
            times.append(first[0])
        self.row.first = ratio(pairs)
        return eager, compiled

    def steady(self, eager: Any, compiled: Any) -> None:
        pairs: list[tuple[float, float]] = []
        for turn in range(self.args.rounds + 1):
            inputs = self.next_inputs()
            base, expected = timed(eager, inputs)
            before = flashpoint.counters()
            ours, actual = timed(compiled, inputs)
            after = flashpoint.counters()
            self.row.calls += 1
            if after["hits"] > before["hits"] and after["captures_started"] == before["captures_started"]:
                self.row.hits += 1
            self.check(f"call {turn + 2}", expected, actual)
            if turn > 0:  # the first replay is warm-up
                pairs.append((ours, base))
        self.row.eager_ms = 1e3 * statistics.median(base for _, base in pairs)
        self.row.steady = ratio(pairs)


# Head in the terminal, head in README.md, cell.
COLUMNS: list[tuple[str, str, Callable[[Row], str]]] = [
    ("model", "model", lambda row: row.model),
    ("params", "parameters", lambda row: f"{row.parameters / 1e6:.1f}M"),
    ("eager ms", "eager, ms", lambda row: _number(row.eager_ms)),
    ("first", "first call", lambda row: _number(row.first, "x")),
    ("first tc", "torch.compile's", lambda row: _number(row.torch_compile_first, "x")),
    ("steady", "later calls", lambda row: _number(row.steady, "x")),
    ("steady tc", "torch.compile's", lambda row: _number(row.torch_compile_steady, "x")),
    ("graphs", "graphs", lambda row: _number(row.graphs)),
    ("nodes", "nodes", lambda row: _number(row.nodes)),
    ("guards", "guards", lambda row: _number(row.guards)),
    ("breaks", "breaks", lambda row: _number(row.breaks)),
    ("replayed", "replayed", lambda row: row.replayed),
    ("result", "result", lambda row: "DIFFERS" if row.failures else "equal"),
]
LEGEND = (
    "first: a fresh model's first call / eager's; steady: later calls / eager's; tc: torch.compile's; "
    "replayed: later calls that ran a recording"
)


def _number(value: float | int | None, unit: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}{unit}" if value >= 100 else f"{value:.2f}{unit}"


def line(cells: Iterable[str]) -> str:
    widths = [max(len(head), 10 if head == "model" else 6) for head, _, _ in COLUMNS]
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def environment(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "flashpoint": flashpoint.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": args.threads,
        "sizes": "tiny" if args.tiny else "full",
        "backend": "eager",
    }


def write_readme(rows: list[Row], args: argparse.Namespace) -> None:
    """Puts the table between the two markers of README.md. Raises ValueError if they are not there."""
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = [
        "| " + " | ".join(head for _, head, _ in COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(cell(row) for _, _, cell in COLUMNS) + " |" for row in rows),
    ]
    told = environment(args)
    caption = (
        f"torch {told['torch']}, CPython {told['python']}, CPU, {told['threads']} thread(s), "
        f"{told['sizes']} sizes, random weights, eval, no_grad, the eager backend on both sides. "
        "Calls are multiples of eager's: a fresh model's first call of a fresh eager model's, later ones "
        "of eager's later ones; medians of pairs in one process. `replayed`: later calls that ran a "
        "recording. `result`: every output field of every call, caches included, equals eager's."
    )
    path.write_text("\n".join([before + BEGIN, "", *table, "", caption, "", END]) + after)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/demo.py",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--models",
        default=",".join(DEMO),
        help="comma-separated; any of the 38 with --tiny, else of the eight",
    )
    add("--tiny", action="store_true", help="tiny sizes")
    add("--no-torch-compile", action="store_true", help="leave torch.compile out")
    add("--json", action="store_true", help="one JSON object per model, and nothing else, on standard output")
    add("--repeats", type=int, default=4, help="fresh models for the first call (default 4)")
    add("--rounds", type=int, default=5, help="timed steady calls (default 5)")
    add("--threads", type=int, default=1, help="torch.set_num_threads (default 1)")
    add("--write-readme", action="store_true", help="put the table into README.md if every result is equal")
    args = parser.parse_args()
    args.models = [name for name in args.models.split(",") if name]
    known = ARCHITECTURES if args.tiny else DEMO
    if unknown := [name for name in args.models if name not in known]:
        parser.error(f"unknown models: {', '.join(unknown)}; there are: {', '.join(known)}")
    if args.repeats < 1 or args.rounds < 1:
        parser.error("--repeats and --rounds must be 1 or more")
    return args


def progress(number: int, args: argparse.Namespace, name: str) -> Callable[[str], None]:
    """Says on standard error what is being done; the last call, with nothing, clears the line."""
    prefix = f"[{number}/{len(args.models)}] {name}"

    def say(what: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{prefix}: {what}" if what else "\r\033[K")
        elif what:
            sys.stderr.write(f"{prefix}: {what}\n")
        sys.stderr.flush()

    return say


def measure(row: Row, args: argparse.Namespace, say: Callable[[str], None]) -> None:
    flashpoint.reset()
    try:
        Measurement(row, args, say).ours()
    except Exception as error:
        row.failures.append(f"{type(error).__name__}: {error}")
    gc.collect()
    say("")


def measure_peer(row: Row, args: argparse.Namespace, say: Callable[[str], None]) -> None:
    """A failure of the peer is worth a note; it does not fail the demo."""
    try:
        Measurement(row, args, lambda what: say(f"torch.compile, {what}")).theirs()
    except Exception as error:
        row.notes.append(f"torch.compile failed: {type(error).__name__}")
    gc.collect()
    say("")


def main() -> int:
    args = parse()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    if not args.json:
        print(", ".join(f"{key} {value}" for key, value in environment(args).items()))
        print(LEGEND)
    rows = [Row(name) for name in args.models]
    # All of ours first: torch.compile changes objects of the process, which guards then see changed.
    passes = [measure] if args.no_torch_compile else [measure, measure_peer]
    for step in passes:
        if step is measure_peer:
            torch.compile(torch.neg, backend="eager")(torch.ones(1))  # its imports are no model's
        if not args.json:
            print(line(head for head, _, _ in COLUMNS), flush=True)
        for number, row in enumerate(rows, 1):
            step(row, args, progress(number, args, row.model))
            if not args.json:
                print(line(cell(row) for _, _, cell in COLUMNS), flush=True)
    return report(rows, args, time.perf_counter() - start)


def report(rows: list[Row], args: argparse.Namespace, seconds: float) -> int:
    """Prints what was met, writes README.md if asked to, returns the exit status."""
    failed = [row for row in rows if row.failures]
    if args.json:
        for row in rows:
            print(json.dumps({**environment(args), **asdict(row)}), flush=True)
    else:
        for row in rows:
            for note in row.notes:
                print(f"note: {row.model}: {note}")
        for row in failed:
            for failure in row.failures:
                print(f"FAILED: {row.model}: {failure}")
        idle = [row.model for row in rows if row.hits < row.calls and not row.failures]
        if idle:
            print(f"not replayed on every steady call: {', '.join(idle)}")
        print(f"{len(rows) - len(failed)} of {len(rows)} models equal eager in every result; {seconds:.0f} s")
    if args.write_readme and not failed:
        write_readme(rows, args)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
