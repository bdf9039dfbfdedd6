"""flashpoint.report: the page about what is compiled."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import flashpoint

VOID = {"meta", "br"}


class Page(HTMLParser):
    """The page's text by element, and whether elements are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "href" and value is not None:
                self.links.add(value.removeprefix("#"))
            if name == "id" and value is not None:
                self.ids.add(value)
            if name == "src" or tag in ("script", "link"):
                self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


def test_page(tmp_path: Path) -> None:
    flashpoint.reset()
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval()
    compiled = flashpoint.compile(net)
    for rows in (1, 2, 2):
        compiled(torch.randn(rows, 4))

    @flashpoint.compile(backend="aot_eager", name="a<b>&c")
    def with_break(x):
        y = x + 1
        flashpoint.graph_break()
        return y * 2

    with flashpoint.config.patch(measure_breaks=True):
        with_break(torch.ones(3))
    page = Page(flashpoint.report(tmp_path / "page.html"))
    assert page.links == page.ids and not page.loads
    for text in (
        "Sequential",
        "backend eager",
        "backend aot_eager",
        "The last call that was recorded had no graph break.",
        "expected tensor Float[1,4] strides (4,1) cpu, found tensor Float[2,4]",
        "flashpoint.graph_break()",  # the line's source
        "replayed 1 time",
        "aten.linear",
    ):
        assert text in page.text, text
    assert " us" in page.text or " ms" in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    def fn(x):
        return x + 1

    fn.__qualname__ = "<script>alert(1)</script>"
    compiled = flashpoint.compile(fn)
    compiled(torch.ones(2))
    page = Page(flashpoint.report(tmp_path / "page.html"))
    assert not page.loads and "<script>alert(1)</script>" in page.text


def test_nothing_compiled_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    assert flashpoint.report(str(path)) == path
    assert "Flashpoint report" in Page(path).text


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^\[flashpoint.report\] path must be a path, not int"):
        flashpoint.report(3)  # type: ignore[arg-type]
    with pytest.raises(OSError):
        flashpoint.report(tmp_path / "missing" / "page.html")
