"""The command line: `pylog export` and `pylog import`."""

import json
from contextlib import contextmanager

import pyarrow
import pyarrow.parquet
import pytest
from orders import NOON, fill, orders_broker
from shell import done, fails, run

import pylog
from pylog import cli_export
from pylog.exits import Exit

ODD = [(b"\xff\n", b"\xfe", [("h", b"\x00"), ("h", None)], NOON), (None, None, [], NOON + 1),
       (b"", b"", [("", b"")], 0), ("é".encode(), "ü".encode(), [("ß", b"1")], NOON)]


@pytest.fixture
def data(data_path):
    """Ten orders a partition, and some odd ones; refunds that nobody got."""
    with orders_broker(data_path) as broker:
        broker.create_topic("refunds", 2)
        fill(broker)
        for value, key, headers, timestamp in ODD:
            broker.append("orders", value, key, headers, partition=2, timestamp=timestamp)
    return data_path


def everything(path, *topics):
    """All that the records bear, but their offsets."""
    with pylog.Broker(path) as broker:
        return [(r.topic, r.partition, r.timestamp, r.key, r.value, r.headers)
                for topic in topics for number in range(broker.topic(topic).partitions)
                for r in broker.read(topic, partition=number)]


@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_what_was_exported_comes_back_whole(data, tmp_path, name):
    assert "exported 34 records" in done("export", "orders", "refunds", "-o",
                                         tmp_path / name).stderr

    assert "imported 34 records" in done("import", "-d", tmp_path / "there",
                                         tmp_path / name).stderr

    assert everything(tmp_path / "there", "orders") == everything(data, "orders")
    with pylog.Broker(tmp_path / "there") as broker:    # retention would have them go at once
        assert broker.topics()["orders"].configs == {"retention.ms": "-1"}


@pytest.mark.parametrize("had", [None, b"an earlier export"])
@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_export_that_is_broken_off_leaves_what_was_there(data, tmp_path, monkeypatch, name, had):
    path = tmp_path / name
    if had is not None:
        path.write_bytes(had)
    chunks = cli_export.chunks

    def broken_off(*given):
        yield next(chunks(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_export, "chunks", broken_off)
    assert run("export", "orders", "-o", path).exit_code == Exit.INTERRUPTED

    assert (path.read_bytes() if path.exists() else None) == had
    assert [one.name for one in tmp_path.iterdir() if "records" in one.name] == \
        [name] * (had is not None)


def test_export_goes_where_a_link_leads(data, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "records.jsonl")
    done("export", "orders", "-o", tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "records.jsonl").read_bytes().splitlines()) == 34


def test_export_to_stdout_is_what_consume_writes(data):
    exported = done("export", "orders").stdout.splitlines()

    assert sorted(exported) == sorted(done("consume", "orders", "-e", "--json").stdout.splitlines())
    assert [json.loads(one)["partition"] for one in exported] == [0] * 10 + [1] * 10 + [2] * 14


def test_export_takes_a_part(data):
    assert len(done("export", "orders", "--from", "-2").stdout.splitlines()) == 6
    assert len(done("export", "orders", "--from", "8", "--to", "9").stdout.splitlines()) == 3
    assert done("export", "refunds").stdout == ""


@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_work_is_shown_to_people(data, tmp_path, monkeypatch, name):
    told = []

    @contextmanager
    def progress(what):
        assert what == "records"
        yield lambda *call: told.append(call)

    monkeypatch.setattr(cli_export, "progress", progress)
    done("export", "orders", "-o", tmp_path / name)
    assert told[-1] == (34, 34)
    done("import", tmp_path / name, tmp_path / name, "--topic", "copy")
    assert told[-1] == (68,)


def test_parquet_has_the_types_of_records(data, tmp_path):
    done("export", "orders", "-o", tmp_path / "o.parquet")

    table = pyarrow.parquet.read_table(tmp_path / "o.parquet")

    assert [str(field.type) for field in table.schema] == [
        "string", "int32", "int64", "timestamp[ms, tz=UTC]", "binary", "binary",
        "list<element: struct<name: string, value: binary>>"]
    assert table["value"].null_count == 1


def test_import_into_one_topic(data, tmp_path):
    given = done("export", "orders").stdout_bytes

    done("import", "--topic", "copy", given=given)

    assert [one[1:] for one in everything(data, "copy")] == \
           [one[1:] for one in everything(data, "orders")]


def test_parquet_of_others_needs_only_values(data, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"value": ["a", None], "price": [1, 2]}),
                                tmp_path / "p.parquet")

    done("import", tmp_path / "p.parquet", "--topic", "prices")

    assert [one[3:5] for one in everything(data, "prices")] == [(None, b"a"), (None, None)]


LINE = '{"topic": "orders", "partition": 0, "value": "new"}\n'


@pytest.mark.parametrize(("bad", "words"), [
    ("no JSON\n", "not JSON"), ("[1]\n", "no object"), ('{"topic": "orders"}\n', "value"),
    ('{"value": "x"}\n', "bears no \"topic\"; say which with --topic"),
    ('{"topic": 7, "value": "x"}\n', '"topic" must be text'),
    ('{"topic": "orders", "partition": -1, "value": "x"}\n', "from 0 on"),
    ('{"topic": "orders", "partition": true, "value": "x"}\n', "from 0 on"),
    ('{"topic": "orders", "partition": 1e3, "value": "x"}\n', "from 0 on"),
    ('{"topic": "orders", "value": "' + "x" * 1_200_000 + '"}\n', "-c max.message.bytes=N"),
], ids=lambda one: one[:40])
def test_bad_line_is_named_after_all_before_it_are_in(data, bad, words):
    result = fails(Exit.FAILED, words, "import", given=(2 * LINE + bad + LINE).encode())

    assert "stdin, line 3: " in result.stderr
    assert "imported 2 records" in result.stderr
    assert [one[4] for one in everything(data, "orders")].count(b"new") == 2


@pytest.mark.parametrize(("given", "words"), [
    ('{"topic": "a b", "value": "x"}', "a b"), ('{"topic": "", "value": "x"}', "name|empty|topic"),
    ('{"topic": "orders", "partition": 3, "value": "x"}', "partitions 0 to 2, and no 3"),
])
def test_import_to_what_cannot_be_fails(data, given, words):
    fails(Exit.FAILED, words, "import", given=given.encode())


@pytest.mark.parametrize(("columns", "words"), [
    ({"price": [1]}, "no column \"value\"; there is price"),
    ({"value": [1.5], "topic": ["orders"]}, "no Parquet file of records"),
    ({"value": ["x"], "topic": ["orders"], "partition": [-1]}, "from 0 on"),
    ({"value": ["x"]}, "bears no \"topic\""),
], ids=str)
def test_parquet_that_holds_no_records_is_refused(data, tmp_path, columns, words):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")

    fails(Exit.FAILED, words, "import", tmp_path / "p.parquet")
    assert len(everything(data, "orders")) == 34


def test_a_file_that_is_no_parquet_is_refused(data, tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"precious")

    fails(Exit.FAILED, "p.parquet is no Parquet file", "import", tmp_path / "p.parquet")


@pytest.mark.parametrize(("code", "words", "arguments"), [
    (Exit.USAGE, "TOPIC", ["export"]), (Exit.USAGE, "no place", ["export", "orders", "--to", "x"]),
    (Exit.USAGE, "directory", ["export", "orders", "-o", "."]),
    (Exit.FAILED, "no topic 'ordrs'; did you mean", ["export", "ordrs"]),
    (Exit.FAILED, "no broker", ["export", "orders", "-d", "nowhere"]),
    (Exit.FAILED, "No such file", ["export", "orders", "-o", "nowhere/x.jsonl"]),
    (Exit.FAILED, "No such file", ["export", "orders", "-o", "nowhere/x.parquet"]),
    (Exit.USAGE, "does not exist", ["import", "nowhere.jsonl"]),
    (Exit.FAILED, "a b", ["import", "--topic", "a b"]),
], ids=str)
def test_what_cannot_be_done_is_told(data, code, words, arguments):
    fails(code, words, *arguments)


def test_without_pyarrow_parquet_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    fails(Exit.FAILED, "pip install pyarrow", "export", "orders", "-o", tmp_path / "o.parquet")


@pytest.mark.parametrize("command", ["export", "import"])
def test_help_shows_an_example(command):
    assert f"pylog {command}" in done(command, "--help").stdout.partition("Examples:")[2]
