"""What the documents say is true: examples run, paths exist, make targets, flags and variables are real."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import flashpoint

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Made by a build or a user, so not in a fresh tree.
MADE = (".venv", "build/", "dist/")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"\.?[\w-][\w./*-]*")
MAKE = re.compile(r"\bmake ([a-z]+)\b")
VARIABLE = re.compile(r"\bFLASHPOINT_[A-Z]+\b")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def spans(text: str) -> list[str]:
    return SPAN.findall(FENCE.sub("", text))


def paths(text: str) -> list[str]:
    """Links, and code spans that look like a path: with a slash, or the name of a file of ours."""
    found = [target for target in LINK.findall(text) if "://" not in target]
    for span in spans(text):
        if PATH.fullmatch(span) and ("/" in span or re.search(r"\.(md|py|txt|toml|sh)$", span)):
            found.append(span)
    return [path for path in found if not path.startswith(MADE)]


def missing_paths(text: str, folder: Path) -> list[str]:
    """Paths are of the document's folder or of the tree."""
    return [p for p in paths(text) if not any([*folder.glob(p), *ROOT.glob(p)])]


def missing_targets(text: str) -> list[str]:
    code = "\n".join([*spans(text), *(body for language, body in FENCE.findall(text) if language == "sh")])
    known = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    return [target for target in MAKE.findall(code) if target not in known]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_paths_exist(document: Path) -> None:
    assert missing_paths(document.read_text(), document.parent) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_make_targets_exist(document: Path) -> None:
    assert missing_targets(document.read_text()) == []


def test_wrong_paths_and_targets_are_found() -> None:
    text = (
        "`tools/nothing.py` [x](docs/no.md) `no-such.md` `Makefile` `make nothing`\n```sh\nmake never\n```\n"
    )
    assert missing_paths(text, ROOT) == ["docs/no.md", "tools/nothing.py", "no-such.md"]
    assert missing_targets(text) == ["nothing", "never"]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if "```python" in d.read_text()], ids=name)
def test_examples_run(document: Path, capsys) -> None:
    """The examples of a document run in order, in one namespace, as a reader would type them."""
    flashpoint.reset()
    namespace: dict[str, object] = {"__name__": "example"}
    text = document.read_text()
    for match in FENCE.finditer(text):
        if match.group(1) == "python":
            # Blank lines in front, so that a traceback names the line of the document.
            code = "\n" * text.count("\n", 0, match.start(2)) + match.group(2)
            exec(compile(code, str(document), "exec"), namespace)


def test_there_are_documents_and_examples() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= {name(d) for d in DOCUMENTS}
    examples = [d for d in DOCUMENTS if "```python" in d.read_text()]
    assert {"README.md", "docs/guide/getting-started.md"} <= {name(d) for d in examples}


def test_readme_output(capsys) -> None:
    """The example's comment says what it prints."""
    code = next(
        body for language, body in FENCE.findall((ROOT / "README.md").read_text()) if language == "python"
    )
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "1"
    assert printed[1].startswith("normalize: 1 graph") and printed[1].endswith("0 breaks")


def test_variables_are_read_somewhere() -> None:
    mentioned = {v for d in DOCUMENTS for v in VARIABLE.findall(d.read_text())}
    sources = "".join(p.read_text() for p in [*ROOT.glob("csrc/**/*.cpp"), *ROOT.glob("flashpoint/*.py")])
    assert {v for v in mentioned if f'"{v}"' not in sources} == set()


def test_settings_table_is_complete() -> None:
    text = (ROOT / "docs/guide/environment.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE))
    assert rows == {key: str(value) for key, value in flashpoint.config.to_dict().items()}


def test_targets_have_help() -> None:
    shown = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE).group(1).split())
    assert {line.split()[1] for line in shown.splitlines()} == targets


def test_ci_runs_the_readmes_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert re.search(r"^\{? ?make .*\btest\b", (ROOT / ".ci/run").read_text(), re.MULTILINE)


PROGRAM = """
import torch, flashpoint
f = flashpoint.compile(lambda x: x + 1)
g = flashpoint.compile(lambda x: print(end="") or x + 1)
f(torch.ones(2)), f(torch.ones(3)), g(torch.ones(2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("FLASHPOINT_LOG", "capture", ["capture <lambda>"]),
        ("FLASHPOINT_LOG", "break", ["break in <lambda>"]),
        ("FLASHPOINT_LOG", "miss", ["miss in <lambda>"]),
        ("FLASHPOINT_LOG", "all", ["capture <lambda>", "break in <lambda>", "miss in <lambda>"]),
        ("FLASHPOINT_LOG", "graph_breaks,recompiles", ["break in <lambda>", "miss in <lambda>"]),
        ("FLASHPOINT_LOG", "graph_code", ["aten.add"]),
        ("TORCH_LOGS", "graph_breaks", ["break in <lambda>"]),
        ("TORCH_LOGS", "guards,graph_code", ["aten.add", "arg0: type is"]),
        ("FLASHPOINT_DUMP", "graph", ["aten.add"]),
        ("FLASHPOINT_DUMP", "guards", ["arg0: type is"]),
        ("FLASHPOINT_DUMP", "graph,guards", ["aten.add", "arg0: type is"]),
    ],
)
def test_log_and_dump(run_python, variable: str, value: str, shown: list[str]) -> None:
    assert f"`{value.split(',')[0]}`" in (ROOT / "docs/guide/environment.md").read_text()
    everything = ["capture <lambda>", "break in <lambda>", "miss in <lambda>", "aten.add", "arg0: type is"]
    done = run_python("-c", PROGRAM, **{variable: value})
    assert done.returncode == 0, done.stderr
    assert [text for text in everything if text in done.stderr] == shown


@pytest.mark.slow
def test_silent_without_variables(run_python) -> None:
    done = run_python("-c", PROGRAM)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == ""


def test_break_reasons_page_is_current() -> None:
    """To write it anew: python tools/break_reasons.py"""
    from tools import break_reasons

    rows = sum((ROOT / path).read_text().count("\nX(") for path, *_ in break_reasons.TABLES)
    assert break_reasons.page().count("\n| `") == rows
    assert break_reasons.PAGE.read_text() == break_reasons.page()
