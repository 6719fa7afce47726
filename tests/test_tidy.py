"""The style guide as assertions over the source tree.

What is too long today stands in a list with its size; the list may only shrink. A file that is
new here keeps the rules from its first line.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE_FOLDERS = ("csrc", "pylog", "tests", "bench", "examples")
CODE = {".py", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h"}

COLUMNS_MAX = 100
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60

# file: how many lines it may have, because it is still one noun.
LONG_FILES = {
    "pylog/_native.pyi": 660,    # the types of one module, which is many .pxi
    "pylog/errors.py": 820,      # one tree, a class each
}
# file:function: how many lines it may have.
LONG_FUNCTIONS: dict[str, int] = {}

# A module imports only from lower floors. `pylog` itself, the list of public names, is for the
# floors above the log; see docs/ARCHITECTURE.md.
FLOORS = {
    "errors": 0, "exits": 0, "report": 0, "indexes": 0, "names": 0, "epochs": 0,
    "compression": 1,
    "_native": 2,
    "walk": 3, "topic": 3, "file_lock": 3, "options": 3,
    "check": 4, "deletion": 4, "metadata_file": 4,
    "log": 5, "partitioner": 5, "metadata": 5, "serde": 5, "kafka_options": 5,
    "group": 5, "claim": 5, "assignor": 5, "share": 5.2,
    "maintenance": 5.5, "broker": 6, "testing": 8,
    "accumulator": 6, "subscription_state": 7, "producer": 7, "aio_producer": 8, "membership": 7.5,
    "positions": 7.5, "subscriber": 7.6, "handling": 7.7, "aio_handling": 7.8,
    "consumer": 8, "aio_consumer": 8, "share_consumer": 8, "aio_share_consumer": 8.2,
    "group_admin": 8, "share_admin": 8.2, "backup": 8, "admin": 8.5,
    "": 9,
    "patterns.headers": 10, "patterns.retry": 10, "patterns.breaker": 10, "patterns.values": 10.1,
    "patterns.letter": 11, "patterns.handler": 11, "patterns.pending": 11.5,
    "patterns.dead_letters": 12,
    "patterns.parking": 13.3, "patterns.reader": 13.4, "patterns.background": 10,
    "patterns.subscription": 13.5, "patterns.pubsub": 13.6, "patterns.wildcards": 10,
    "patterns.events": 11, "patterns.routes": 12, "patterns.listening": 13.55, "patterns.bus": 13.6,
    "patterns.standby": 10, "patterns.dbapi": 10, "patterns.relay": 11,
    "patterns.outbox": 12, "patterns.inflow": 14, "patterns.hub": 11, "patterns.push_asgi": 12,
    "patterns.rooms": 15, "patterns.chain": 11, "patterns.audit": 15, "patterns.audit_entry": 12,
    "patterns.racing": 9.5, "patterns.index_runs": 10,
    "patterns.event_codec": 12, "patterns.stream_index": 12.5, "patterns.snapshots": 12,
    "patterns.feed": 12,
    "patterns.event_store": 13,
    "patterns.view_file": 10.5, "patterns.views": 11, "patterns.projection_status": 12,
    "patterns.projector": 14, "patterns.projection_run": 15,
    "patterns.projection": 16,
    "patterns.delayed": 13, "patterns.queue_workers": 13, "patterns.queue": 13.2,
    "patterns.time_limit": 10, "patterns.task_status": 11, "patterns.task": 12,
    "patterns.task_runner": 15, "patterns.schedule": 15, "patterns.worker": 12,
    "patterns.app": 16,
    "envelope": 10, "hardware": 10,
    "patterns": 20, "patterns.unpicklable": 9, "patterns.tenant": 10.1,
    "patterns.state": 10.2, "patterns.schema": 9.5,
    "patterns.key_claim": 12, "patterns.idempotency": 13, "patterns.compatibility": 10,
    "patterns.registry": 11, "patterns.claimant": 10,
    "patterns.saga_commands": 14, "patterns.saga_steps": 15, "patterns.saga_entry": 12,
    "patterns.saga_journal": 13,
    "patterns.saga_run": 16, "patterns.saga_handle": 17, "patterns.saga_ear": 17,
    "patterns.saga_calls": 18, "patterns.saga_orchestrator": 18.5, "patterns.saga": 19,
    "patterns.replies": 11, "patterns.answering": 12, "patterns.asker": 13,
    "patterns.server": 13.6, "patterns.rpc": 14,
    "streams": 11, "dump": 11,
    "benchmark": 11, "benchmark.settings": 10, "benchmark.crew": 10,
    "benchmark.ground": 10, "benchmark.proof": 10,
    "benchmark.timing": 11, "benchmark.rows": 12, "benchmark.throughput": 13,
    "benchmark.pings": 14, "benchmark.syncs": 14, "benchmark.runner": 15,
    "benchmark.comparison": 16, "benchmark.table": 17, "benchmark.command": 18,
    "stress": 10, "stress.anomalies": 10, "stress.sightings": 11, "stress.passage": 12,
    "stress.diary": 10, "stress.forgery": 10, "stress.judgement": 14, "stress.grouping": 14,
    "stress.queue_forgery": 11, "stress.queue_judgement": 14.5, "stress.queue_work": 15,
    "stress.request_forgery": 11, "stress.request_judgement": 14.1,
    "stress.request_work": 15, "stress.ensemble": 17,
    "stress.timed_forgery": 11, "stress.timed_judgement": 14.2, "stress.timed_work": 14.8,
    "stress.settlement": 12, "stress.examination": 13, "stress.editor": 10,
    "stress.planting": 11, "stress.liars": 15, "stress.trial": 16,
    "stress.plan": 10, "stress.board": 10, "stress.disk": 11, "stress.cast": 12,
    "stress.nemesis": 13, "stress.inspection": 14, "stress.writing": 14, "stress.reading": 14,
    "stress.excuses": 14, "stress.watching": 15, "stress.stage": 16, "stress.verdict": 17,
    "stress.display": 17, "stress.command": 18,
    "record_format": 11, "cli_options": 18, "cli_records": 19.2,
    "cli_groups": 19, "cli_share": 19, "cli_topics": 19, "observation": 10, "live": 19,
    "parquet": 12,
    "cli_export": 19, "cli_queue": 21, "cli_saga": 21, "cli_schema": 21, "cli_request": 21,
    "supervisor": 10, "cli_run": 21, "cli_task": 21, "cli_projection": 21, "cli_outbox": 21,
    "cli_stat": 19.5, "cli_dlq": 19, "cli_bus": 19.5, "cli_events": 21, "cli_audit": 21,
    "cli_idempotency": 21, "cli_rooms": 21,
    "cli": 20,
    "__main__": 21,
}


def source_files(*suffixes):
    """The files of the source folders, and those at the top, by suffix."""
    places = [ROOT.glob("*.*"), *((ROOT / folder).rglob("*") for folder in SOURCE_FOLDERS)]
    return sorted(
        path for place in places for path in place
        if path.suffix in suffixes and path.is_file()
        and not {"build", "__pycache__"} & set(path.relative_to(ROOT).parts)
    )


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


ALL_CODE = source_files(*CODE)
PACKAGE = sorted((ROOT / "pylog").rglob("*.py"))

each_file = pytest.mark.parametrize("path", ALL_CODE, ids=name_of)


def test_the_source_tree_is_found():
    assert {ROOT / "setup.py", ROOT / "pylog/errors.py", Path(__file__)} <= set(ALL_CODE)


@each_file
def test_lines_are_short_and_clean(path):
    text = path.read_text(encoding="utf-8")

    assert not text or text.endswith("\n"), "no newline at the end"
    for number, line in enumerate(text.splitlines(), 1):
        assert len(line) <= COLUMNS_MAX, f"{name_of(path)}:{number}: {len(line)} columns"
        assert line == line.rstrip(), f"{name_of(path)}:{number}: white space at the end"
        assert "\t" not in line, f"{name_of(path)}:{number}: a tab"


@each_file
def test_files_are_short(path):
    count, most = len(lines_of(path)), LONG_FILES.get(name_of(path), FILE_LINES_MAX)

    assert count <= most, f"{name_of(path)} has {count} lines of {most}: split it by noun"
    assert count > FILE_LINES_MAX or name_of(path) not in LONG_FILES, "strike it off LONG_FILES"


@each_file
def test_functions_are_short(path):
    for function, count in function_lengths(path):
        most = LONG_FUNCTIONS.get(f"{name_of(path)}:{function}", FUNCTION_LINES_MAX)
        assert count <= most, f"{name_of(path)}: {function} has {count} lines of {most}"


@each_file
def test_no_notes_to_self_are_left(path):
    words = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))

    for number, line in enumerate(lines_of(path), 1):
        assert not re.search(rf"\b({words})\b", line), f"{name_of(path)}:{number}: {line.strip()}"


@each_file
def test_file_begins_with_what_it_is_for(path):
    lines = [line for line in lines_of(path) if not line.startswith(("#!", "# cython:"))]
    first = next((line for line in lines if line.strip()), None)

    assert first is None or first.startswith(("/*", "//", '"""', "# ")), first


def test_file_names_are_unique():
    repeated = {"__init__.py", "__main__.py", "conftest.py", "command.py"}
    examples = ROOT / "examples" / "patterns"    # each has the name of its pattern
    counts = Counter(path.name for path in ALL_CODE
                     if path.name not in repeated and path.parent != examples)

    assert [name for name, count in counts.items() if count > 1] == []


def test_c_core_knows_no_python():
    for path in (ROOT / "csrc").iterdir():
        assert "Python" + ".h" not in path.read_text(encoding="utf-8"), name_of(path)


def test_c_headers_include_no_circle():
    quoted = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
    graph = {
        path.name: set(quoted.findall(path.read_text(encoding="utf-8")))
        for path in (ROOT / "csrc").glob("*.h")
    }

    assert first_cycle(graph) is None


def test_modules_import_only_from_lower_floors():
    graph = import_graph()

    assert [module for module in graph if floor(module) is None] == [], "give them a floor above"
    for module, imported in graph.items():
        for other in imported:
            assert floor(other) is not None, f"pylog.{module} imports the unknown pylog.{other}"
            assert floor(other) < floor(module), f"pylog.{module} imports pylog.{other}"


def test_patterns_are_built_on_what_pylog_exports():
    for module, imported in import_graph().items():
        if module.partition(".")[0] == "patterns":
            lower = {other for other in imported if other.partition(".")[0] != "patterns"}
            assert lower <= {""}, f"pylog.{module} needs {lower}: export a verb for it"


def test_modules_import_in_no_circle():
    assert first_cycle(import_graph()) is None


def test_library_raises_and_never_asserts():
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{name_of(path)}:{node.lineno}: python -O"


def test_generated_c_stays_out_of_the_package():
    assert sorted((ROOT / "pylog").rglob("*.c")) == []


def function_lengths(path):
    """Yields (function, lines) of a Python file, docstrings left out, or of a C file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = node.body[0] if ast.get_docstring(node) else None
                spared = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
                yield node.name, node.end_lineno - node.lineno + 1 - spared
    elif path.suffix in (".c", ".h"):
        for number, line in enumerate(text.splitlines()):
            if re.match(r"\w.*\w\(", line):
                name, start = re.findall(r"(\w+)\(", line)[-1], number
            elif line == "}":
                yield name, number - start + 1


def import_graph():
    """module of pylog: the modules of pylog that it imports when it is imported itself."""
    graph = {module_of(path): set(imports_of(path)) for path in PACKAGE}
    for path in (ROOT / "pylog").glob("*.pyx"):
        pattern = re.compile(r"^from pylog(?: import |\.)(\w+)(?! cimport)\b", re.MULTILINE)
        graph[path.stem] = set(pattern.findall(path.read_text(encoding="utf-8")))
    return graph


def module_of(path):
    parts = path.relative_to(ROOT / "pylog").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path):
    """The absolute imports from pylog at module level; `""` is the package itself."""
    package = {module_of(other) for other in PACKAGE} | {"_native"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("pylog").lstrip(".")
                for alias in node.names if alias.name.split(".")[0] == "pylog"
            )
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}:{node.lineno}: import by the full name"
            source, _, module = node.module.partition(".")
            if source == "pylog":
                inner = {f"{module}.{alias.name}".lstrip(".") for alias in node.names} & package
                yield from inner or {module}


def floor(module):
    """A package's modules stand on its floor."""
    return FLOORS.get(module, FLOORS.get(module.partition(".")[0]))


def first_cycle(graph):
    """A list of names that ends where it began, or None."""
    done = set()

    def walk(name, trail):
        if name in trail:
            return [*trail[trail.index(name):], name]
        if name not in done:
            done.add(name)
            for other in sorted(graph.get(name, ())):
                if found := walk(other, [*trail, name]):
                    return found
        return None

    return next((found for name in sorted(graph) if (found := walk(name, []))), None)
