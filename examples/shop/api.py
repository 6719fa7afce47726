"""The shop's HTTP face: takes orders and answers at once, shows what became of them.

    POST /api/orders               {"userId", "items": [{"productId", "quantity"}], "totalCents"}
                                   Idempotency-Key: the same key of a user is the same order,
                                   and with other content it is refused
    GET  /api/users/{user}/orders  the read model
    GET  /api/orders/{id}          one of them
    GET  /api/figures              how many there are, completed and rejected
    WS   /live/?room=order-{id}    each change of it; room=shop: the figures of the shop
    GET  /                         a page that uses all of these
"""

import json
import uuid
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import uvicorn
from domain import LIVE, ORDER_PARTITIONS, ORDERS, Order, order_id_of
from history import ask, figures
from services import options
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route

from pylog import Broker, FingerprintMismatchError, ValidationError
from pylog.patterns import Idempotency, Rooms, Schemas, Topic

PAGE = Path(__file__).with_name("page.html")
MAX_BODY_BYTES = 64 << 10


def make_app(broker, views):
    """views: the path of the read model (history.py makes it)."""
    orders = Topic(broker, ORDERS, value=Schemas(broker).register(ORDERS, Order),
                   num_partitions=ORDER_PARTITIONS)
    placed = Idempotency(broker, "orders")
    rooms = Rooms(broker, LIVE)

    async def place_order(request):
        body = await request.body()
        try:
            if len(body) > MAX_BODY_BYTES or not isinstance(order := json.loads(body), dict):
                raise ValueError("an order is a JSON object of at most 64 KiB")
            key = request.headers.get("Idempotency-Key") or uuid.uuid4()
            order_id = order_id_of(order.get("userId"), key)
            async with placed.claim(order_id, json.dumps(order, sort_keys=True)) as claim:
                if not claim.done:
                    order = {"placedAt": date.today().isoformat()} | order | {"orderId": order_id}
                    orders.publish(order, key=order.get("userId"))    # nobody waits for it
                    claim.save()
        except FingerprintMismatchError:
            return refusal(409, [f"the Idempotency-Key {key!r} was used for another order, "
                                 f"{order_id}: send this one under a new key"])
        except ValidationError as error:
            return refusal(422, [": ".join(filter(None, one)) for one in error.errors])
        except (TypeError, ValueError, RecursionError) as error:    # the last: "[[[[..."
            return refusal(400, [f"no order in JSON: {error}"])
        return JSONResponse({"orderId": order_id, "status": "processing"}, 202)

    def orders_of_user(request):
        found = rows(views, "user_id = ? ORDER BY placed_at DESC, rowid DESC",
                     request.path_params["user"])
        return JSONResponse({"orders": found})

    def shop_figures(_):
        return JSONResponse(ask(views, figures) or {})

    def one_order(request):
        found = rows(views, "order_id = ?", request.path_params["order"])
        return JSONResponse(found[0]) if found else refusal(404, ["no such order, or not yet"])

    @asynccontextmanager
    async def lifespan(_):
        with orders, placed:
            yield

    return Starlette(lifespan=lifespan, routes=[
        Route("/", lambda _: FileResponse(PAGE)),
        Route("/api/orders", place_order, methods=["POST"]),
        Route("/api/orders/{order}", one_order),
        Route("/api/users/{user}/orders", orders_of_user),
        Route("/api/figures", shop_figures),
        Mount("/live", rooms.asgi(authorize=None)),    # a real shop would ask who it is
    ])


def refusal(status, errors):
    return JSONResponse({"errors": errors}, status)


def rows(views, where, value):
    """Orders of the read model."""
    return ask(views, lambda view: [dict(row) for row in view.execute(
        f"SELECT * FROM orders_by_user WHERE {where}", [value])]) or []


def main():
    given = options(port=8000)
    with Broker(given.data) as broker:
        uvicorn.run(make_app(broker, given.data / "views.db"), port=given.port,
                    log_level="warning")


if __name__ == "__main__":
    main()
