"""`pylog request`: a question to a topic whose requests somebody serves, and the answer."""

import os
import sys
from pathlib import Path

import click

from pylog import envelope
from pylog.cli_options import (
    as_json,
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    split_header,
)
from pylog.envelope import Headers
from pylog.patterns.rpc import Rpc

EXAMPLES = """\b
Examples:
  pylog request prices '{"product": 17}'
  pylog request prices - --timeout 1 --json < question.json
"""


@click.command(epilog=EXAMPLES)
@click.argument("topic", shell_complete=complete_topic)
@click.argument("value")
@data_dir
@click.option("-t", "--timeout", metavar="SECONDS", default=5.0, show_default=True,
              type=click.FloatRange(min=0), help="How long to wait for the reply.")
@click.option("-k", "--key", metavar="TEXT", help="Of the request.")
@click.option("-H", "--header", "headers", metavar="NAME=VALUE", multiple=True,
              callback=split_header, help="A header of the request; may be repeated.")
@as_json
def request(topic: str, value: str, data_dir: Path, timeout: float, key: str | None,
            headers: Headers, as_json: bool) -> None:
    """Send VALUE (stdin, if it is -) to TOPIC, and print the reply.

    What the handler raised, or that none replied in time, is the error that it ends with (1).
    """
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    with open_broker(data_dir) as broker:
        need_topic(broker, topic)
        with Rpc(broker) as rpc:
            reply = rpc.request(topic, data, timeout, headers or None,
                                None if key is None else os.fsencode(key))
            out = sys.stdout.buffer
            out.write(envelope.json_lines([reply]) if as_json
                      else envelope.plain_lines([reply.value]))
            out.flush()
