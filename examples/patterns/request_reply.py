"""A web shop asks for prices; two servers in threads of their own share the questions.

    python examples/patterns/request_reply.py
"""

import tempfile

from pylog import RemoteError, RequestTimeoutError
from pylog.patterns.rpc import Rpc

PRICES = {"apple": 3, "pear": 4}


def price(request):
    """What it returns is the reply; what it raises is raised where it was asked."""
    return {"product": request.value, "price": PRICES[request.value]}


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, Rpc(f"{folder}/data", value="json") as rpc:
        servers = [rpc.handler("prices", price) for _ in range(2)]    # or in other processes

        print(rpc.request("prices", "apple").value)
        print([reply.value["price"] for reply in rpc.request_many("prices", ["pear"] * 3)])
        try:
            rpc.request("prices", "plum")
        except RemoteError as error:
            print(f"{error.type}: {error.reason}")
        for server in servers:
            server.stop()
        try:
            rpc.request("prices", "apple", timeout=0.1)
        except RequestTimeoutError as error:
            print("nobody answers:", error)


if __name__ == "__main__":
    main()
