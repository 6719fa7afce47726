"""What the documents say is so: examples run, links lead somewhere, what is named exists."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pylog
from pylog import patterns
from pylog.stress.anomalies import ROWS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What needs more than pylog is tested on its own; `make demo` and `make shop` run it.
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.py")
                  if not path.name.startswith("flights") and path.parent.name != "shop")
MODULES = sorted(found.name for found in pkgutil.iter_modules(pylog.__path__)
                 if found.name not in ("_native", "__main__"))
MODULES += sorted(f"patterns.{found.name}" for found in pkgutil.iter_modules(patterns.__path__))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_as_session(name, capsys):
    """Runs the examples of a document one after the other, each with what those before have made.

    What one prints is in a ```text block below it. One that begins with `# name.py` is a file, one
    in sh is typed into a shell.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    names, opened = {}, {}
    example = r"^```(python|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    try:
        for found in re.finditer(example, text, re.DOTALL | re.MULTILINE):
            language, source, expected = found.groups(default="")
            if file := re.match(r"# (\w+\.py)\n", source):
                Path(file[1]).write_text(source, encoding="utf-8")
                continue
            line = text[:found.start(2)].count("\n")
            if language == "sh":
                print(subprocess.run(["bash", "-ec", source], stdout=subprocess.PIPE, text=True,
                                     timeout=60, check=True).stdout, end="")
            else:
                exec(compile("\n" * line + source, name, "exec"), names)
                opened |= {id(one): one for one in names.values()
                           if isinstance(one, (pylog.Broker, patterns.App))}
            assert capsys.readouterr().out == expected, f"{name}, line {line + 1}"
    finally:    # threads of theirs would go on beside later tests
        for one in opened.values():
            one.close()


def test_there_is_something_to_test():
    assert blocks(README, "python")
    assert len(EXAMPLES) >= 3
    assert {"log", "check", "errors"} <= set(MODULES)


def test_readme_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}

    for source in blocks(README, "python"):
        exec(compile(source, "README.md", "exec"), names)

    names["broker"].close()
    assert capsys.readouterr().out == (
        "0 b'alice' b'12 apples'\n1 None b'3 pears'\n2 None b'7 plums'\n"
        "[b'3 pears', b'7 plums'] int64\n"
        "0 b'alice' b'{\"apples\":12}'\n")
    assert pylog.check("data/orders").ok
    assert pylog.check("data/shop/sales-0").ok


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/guide.md", "docs/patterns.md",
                                  "docs/from-the-lesson.md"])
def test_document_runs_and_prints_what_it_says(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))    # for the scripts that it starts
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    run_as_session(name, capsys)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir()), "it left something behind"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path):
    most = {"patterns": 39, "tasks": 50}.get(path.parent.name, 40)    # tasks: of exercises
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    failed, _ = doctest.testmod(importlib.import_module(f"pylog.{name}"))

    assert failed == 0


def test_the_package_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    failed, tried = doctest.testmod(pylog)

    assert tried
    assert failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), f"{path.name} links {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    named = re.findall(r"`((?:csrc|pylog|bench|tests|docs|examples)/[\w./]*)`",
                       path.read_text(encoding="utf-8"))

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_readme_stays_short():
    assert len(README.splitlines()) <= 90


def test_readme_names_chores_that_make_knows():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for chore in re.findall(r"^ +make (\S+)", README, re.MULTILINE):
        assert re.search(rf"^{chore}:", makefile, re.MULTILINE), chore


def test_every_file_of_the_core_is_in_the_architecture():
    headers = (ROOT / "csrc" / "pl_log.h").read_text(encoding="utf-8")

    for path in (ROOT / "csrc").glob("*.c"):
        known = ARCHITECTURE + headers
        assert path.name in known or path.with_suffix(".h").name in known, path.name


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [project["project"]["dependencies"], project["build-system"]["requires"],
              *project["project"]["optional-dependencies"].values(),
              *project["dependency-groups"].values()]
    names = {re.match(r"[\w-]+", need)[0] for group in groups for need in group
             if isinstance(need, str)}
    reasons = ARCHITECTURE[ARCHITECTURE.index("## Dependencies"):]

    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", reasons)] == []


def test_every_anomaly_is_on_the_page_as_the_catalogue_has_it():
    text = (ROOT / "docs/stress.md").read_text(encoding="utf-8")
    text = text[text.index("## What can be wrong"):text.index("## What it does not check")]
    rows = re.findall(r"^\| ([a-z-]+) \| (.+) \| ([a-z]+) \| (.*) \|$", text, re.MULTILINE)

    assert [(row.name, row.meaning, row.seen_by) for row in ROWS] == [row[:3] for row in rows]
    assert [row[3] for row in rows] == [
        "documented" if row.is_documented else ", ".join(row.excused_by) for row in ROWS]


@pytest.mark.parametrize(("name", "least"), [("stress.md", 1), ("guarantees.md", 50)])
def test_tests_that_a_page_names_exist(name, least):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))

    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", tests, re.MULTILINE))
    assert len(named) >= least
    assert named - there == set()


def test_each_line_of_the_guarantees_says_what_shows_it():
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!fault|setting)(.*) \|$", text, re.MULTILINE)

    assert len(rows) > 40
    for row in rows:
        shown_by = row.rpartition(" | ")[2]
        assert re.match(r"`test_|nothing: ", shown_by), row
