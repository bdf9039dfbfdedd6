"""Text of a graph may come from a file: whatever it holds, parsing gives a verified graph or a ValueError."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from flashpoint import _C
from tests.python.store.support import fork, reap

TEXTS = [path.read_text() for path in sorted((Path(__file__).parents[1] / "text" / "ir").glob("*.ir"))]
NUMBERS = [
    "0",
    "-1",
    "1",
    "2147483648",
    "-9223372036854775808",
    "9223372036854775808",
    "1" * 400,
    "1e999",
    "nan",
]
PIECES = [
    "%", "(", ")", "[", "]", "{", "}", ",", "=", ":", "\n", "#", '"', "'", "\\", "->", " ", "\0", "\x80", "é",
    "%0", "%999999999999", "aten.add.Tensor", "aten.nonsense", "graph", "return", "f32", "cpu", "None",
    "True", "alpha=", "src=", "f32[", "f32[2,", "[[[[", "((((", "inf", "0x", "1.5e",
]  # fmt: skip


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.randrange(1, 5)):
        at, kind = rng.randrange(len(text) + 1), rng.randrange(9)
        size = rng.choice([1, 1, 3, 20])
        if kind == 0:
            text = text[:at] + text[at + size :]
        elif kind == 1:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) + text[at + size :]
        elif kind == 3:
            text = text[:at]
        elif kind in (4, 5):
            numbers = list(re.finditer(r"-?\d+", text))
            if numbers:
                number = rng.choice(numbers)
                value = rng.choice([*NUMBERS, str(rng.randrange(20))])
                text = text[: number.start()] + value + text[number.end() :]
        elif kind == 6:
            lines = text.split("\n")
            rng.shuffle(lines) if rng.random() < 0.2 else lines.insert(
                rng.randrange(len(lines)), rng.choice(lines)
            )
            text = "\n".join(lines)
        elif kind == 7:
            start = rng.randrange(len(text) + 1)
            text = text[:at] + text[start : start + size] + text[at:]
        else:
            words = list(re.finditer(r"[\w.]+", text))
            if len(words) > 1:
                one, two = rng.sample(words, 2)
                text = text[: one.start()] + two.group() + text[one.end() :]
    return text


def use(text: str) -> bool:
    """Whether it is a graph. One that is prints, and its print reads back as the same."""
    try:
        graph = _C._graph_parse(text)
    except (ValueError, UnicodeEncodeError):
        return False
    assert graph.verify() == ""
    again = graph.text()
    assert _C._graph_parse(again) == graph
    return True


def fuzz(seed: int, count: int) -> None:
    def run() -> None:
        rng, good = random.Random(seed), 0
        for _ in range(count):
            good += use(mutate(rng.choice(TEXTS), rng))
        assert 0 < good < count

    assert reap([fork(run)], 60 + count / 100) == [0]  # in a child: a crash is a failed test


@pytest.mark.parametrize("seed", range(4))
def test_changed_texts(seed) -> None:
    fuzz(seed, 1500)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_changed_texts(seed) -> None:
    fuzz(seed, 50_000)


@pytest.mark.parametrize("opening", ["(", "[", "{", "[[1],", "aten.add.Tensor(", '"', "-", "f32["])
def test_deep_texts(opening) -> None:
    """No depth of brackets reaches the end of the C stack."""

    def run() -> None:
        for text in TEXTS:
            for at in [m.start() for m in re.finditer(r"[(\[=]", text)][:40]:
                use(text[: at + 1] + opening * 300_000 + text[at + 1 :])

    assert reap([fork(run)], 120) == [0]


def test_cut_texts() -> None:
    def run() -> None:
        for text in TEXTS:
            for size in range(len(text)):
                use(text[:size])

    assert reap([fork(run)], 120) == [0]
