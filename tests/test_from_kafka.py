"""What docs/from-kafka-python.md says, held against kafka-python and against pylog."""

import inspect
import re
from pathlib import Path

import kafka
import pytest

import pylog
from pylog.kafka_options import KAFKA_OPTIONS

PAGE = (Path(__file__).parent.parent / "docs/from-kafka-python.md").read_text(encoding="utf-8")
PAIRS = [(kafka.KafkaProducer, pylog.Producer), (kafka.KafkaConsumer, pylog.Consumer)]
OPTIONS = {name for theirs, _ in PAIRS for name in theirs.DEFAULT_CONFIG}
OURS = {name for _, own in PAIRS for name in inspect.signature(own.__init__).parameters}


def names_between(start, end):
    return set(re.findall(r"`([a-z]\w*)`", PAGE[PAGE.index(start):PAGE.index(end)]))


def test_script_is_kafka_pythons_before_the_change_and_runs_after_it(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = re.search("^```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1].splitlines()
    before, after = ("\n".join(line[1:] for line in lines if line[0] in signs)
                     for signs in ("- ", "+ "))

    compile(before, "before", "exec")
    exec(re.search("^from kafka import .*", before)[0], {})
    exec(after, {})

    assert capsys.readouterr().out == "".join(
        f"orders 0 {n} b'alice' b'order {n}'\n" for n in range(3))


def test_each_option_of_kafka_python_is_taken_or_told_why_not():
    assert names_between("Taken, and", "And `buffer_memory`") == OPTIONS & OURS
    assert names_between("| option |", "Methods that are") - {"client_id"} == OPTIONS - OURS
    assert KAFKA_OPTIONS.keys() - {"client_id"} == OPTIONS - OURS


@pytest.mark.parametrize(("theirs", "own"), PAIRS)
def test_option_that_is_refused_is_refused_with_what_to_do(tmp_path, theirs, own):
    for option in theirs.DEFAULT_CONFIG.keys() - inspect.signature(own).parameters.keys():
        with pytest.raises(TypeError, match=f"{option}': {re.escape(KAFKA_OPTIONS[option])}"):
            own(tmp_path, **{option: theirs.DEFAULT_CONFIG[option]})


def test_each_method_of_kafka_python_is_there_or_told_of():
    missing = {name for theirs, own in PAIRS for name in set(dir(theirs)) - set(dir(own))
               if name.islower() and not name.startswith("_")}

    assert names_between("Methods that are", "`timeout_ms` of") == missing


def test_errors_that_are_named_are_those_of_kafka():
    row = next(line for line in PAGE.splitlines() if line.startswith("| `KafkaError`"))
    named = set(re.findall(r"`([A-Z]\w+Error)`", row)) - {"PylogError", "PylogTimeoutError"}

    assert all(hasattr(kafka.errors, name) for name in named)
    assert {name for name in named if hasattr(pylog, name)} == {
        "CommitFailedError", "OffsetOutOfRangeError"}
