"""`pylog schema` and `pylog request`, as typed."""

import json

import pytest
from shell import done, fails, lines, run

from pylog import Broker
from pylog.exits import Exit
from pylog.patterns import Rpc, Schemas

OLD = {"type": "object", "properties": {"user": {"type": "string"}}}
STRICT = OLD | {"required": ["user"]}


@pytest.fixture
def registered(data_path):
    with Schemas(data_path) as schemas:
        schemas.register("orders", OLD)
        schemas.register("orders", OLD | {"title": "Order"}, "FULL")
        schemas.register("users", OLD)
    return data_path


@pytest.fixture
def served(data_path):
    with Broker(data_path) as broker, Rpc(broker) as rpc:
        def shout(request):
            if request.value == b"fail":
                raise LookupError("nothing is there")
            return request.value.upper() + (request.header("mark") or b"") + (request.key or b"")

        rpc.handler("shout", shout)
        broker.create_topic("mute")
        yield data_path


def test_schemas_are_listed(registered):
    assert lines("schema", "ls") == [
        b"SUBJECT  VERSION  ID  COMPATIBILITY",
        b"orders         2   1  FULL",
        b"users          1   2  BACKWARD"]
    assert [json.loads(line)["subject"] for line in lines("schema", "ls", "--json")] \
        == ["orders", "users"]


def test_a_schema_is_shown(registered):
    assert json.loads(done("schema", "show", "orders").stdout)["title"] == "Order"
    assert json.loads(done("schema", "show", "orders", "--version", "1").stdout) == OLD


def test_what_may_follow_is_told_from_what_may_not(registered, tmp_path):
    (tmp_path / "strict.json").write_text(json.dumps(STRICT))
    (tmp_path / "same.json").write_text(json.dumps(OLD))

    refused = run("schema", "check", "users", tmp_path / "strict.json")

    assert refused.exit_code == Exit.DAMAGE
    assert refused.stdout == ("user: FIELD_REQUIRED: who reads requires it, and who wrote did "
                              "not\n")
    assert done("schema", "check", "users", tmp_path / "same.json").stdout == ""
    assert done("schema", "check", "users", tmp_path / "strict.json", "--compatibility",
                "forward").stdout == ""


def test_looking_registers_nothing(data_path):
    with Broker(data_path):
        pass

    assert lines("schema", "ls", "--json") == []
    fails(Exit.FAILED, "nor of anything", "schema", "show", "orders")
    with Broker(data_path) as broker:
        assert "_schemas" not in broker.topics()


def test_schemas_that_are_not_there_or_none_are_told(registered, tmp_path):
    for name, text in (("bad.json", "{"), ("list.json", "[]"), ("odd.json", '{"type": "thing"}')):
        (tmp_path / name).write_text(text)

    fails(Exit.FAILED, "no schema of 'nobody'", "schema", "show", "nobody")
    fails(Exit.FAILED, "versions 1 to 2, and no 3", "schema", "show", "orders", "--version", "3")
    fails(Exit.FAILED, "is no JSON:", "schema", "check", "orders", tmp_path / "bad.json")
    fails(Exit.FAILED, "is an object", "schema", "check", "orders", tmp_path / "list.json")
    fails(Exit.FAILED, "no JSON Schema", "schema", "check", "orders", tmp_path / "odd.json")
    fails(Exit.FAILED, "no schema of 'nobody'", "schema", "check", "nobody", tmp_path / "odd.json")


def test_request_prints_the_reply(served):
    assert lines("request", "shout", "hello") == [b"HELLO"]
    assert lines("request", "shout", "-", "-H", "mark=!", "-k", "key", given=b"a\nb") \
        == [b"A", b"B!key"]
    assert json.loads(done("request", "shout", "hello", "--json").stdout)["value"] == "HELLO"
    with Broker(served) as broker:
        assert len([name for name in broker.topics() if name.startswith("reply.")]) == 1


def test_request_that_comes_to_nothing_ends_with_the_reason(served):
    fails(Exit.FAILED, "raised LookupError: nothing is there", "request", "shout", "fail")
    fails(Exit.FAILED, "no reply from 'mute' within 0.05 s", "request", "mute", "x", "-t", "0.05")
    fails(Exit.FAILED, "there is no topic 'shouts'", "request", "shouts", "x")
    fails(Exit.USAGE, "-1", "request", "shout", "x", "-t", "-1")
    fails(Exit.FAILED, "no broker", "request", "shout", "x", "-d", served / "none")
