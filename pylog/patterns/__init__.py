"""The patterns of event-driven systems, one file each, built on what `pylog` exports and no more.

    Queue, AsyncQueue      point to point: each message for one worker           queue.py
    Topic, AsyncTopic      publish-subscribe: every subscriber gets a copy       pubsub.py
    Bus, AsyncBus          an event bus: types, wildcards, groups                bus.py
    Event, event           what a handler of it gets; declared events            events.py
    Rpc, AsyncRpc          request-reply: a question, its answer or its error    rpc.py
    App, current_task      async tasks: sent, worked off, watched                app.py
    Retry, expo            how often a handler is tried again, and when          retry.py
    DeadLetters            what handlers failed on: show, replay, discard        dead_letters.py
    Idempotency            what is done under a key is done once                 idempotency.py
    Outbox                 what a transaction of yours has to say, sent once     outbox.py
    Saga, serve            steps done all or undone, whoever is killed           saga.py
    Audit                  who did what, in a chain that shows tampering         audit.py
    Rooms                  messages pushed to WebSocket clients, with replay     rooms.py
    Schemas, schema_of     values of a type, checked; its versions, registered   registry.py
    EventStore, NewEvent   streams of events, and what they come to              event_store.py
    Projection             a view in a database, folded from events              projection.py
    State                  a dict folded from a topic, and changed exactly       state.py

All state is in topics, so it is seen by every process, survives the kill of any, and can be moved
to a Kafka cluster. What a subscription is, `subscription.py` has.
"""

from pylog.patterns.answering import Request, ServerStats
from pylog.patterns.app import App
from pylog.patterns.asker import RpcStats
from pylog.patterns.audit import Audit
from pylog.patterns.audit_entry import AuditEntry
from pylog.patterns.bus import AsyncBus, Bus
from pylog.patterns.chain import Break, Head
from pylog.patterns.compatibility import Reason
from pylog.patterns.dead_letters import DeadLetters
from pylog.patterns.event_codec import NewEvent, StoredEvent
from pylog.patterns.event_store import (
    ANY,
    EXISTS,
    NO_STREAM,
    AppendResult,
    EventStore,
    Folded,
    StreamState,
)
from pylog.patterns.events import Event, event
from pylog.patterns.handler import Stats
from pylog.patterns.hub import Message
from pylog.patterns.idempotency import Idempotency
from pylog.patterns.inflow import Inflow
from pylog.patterns.key_claim import KeyClaim, KeyEntry
from pylog.patterns.letter import Letter
from pylog.patterns.outbox import Outbox, Parked
from pylog.patterns.projection import Projection
from pylog.patterns.projection_status import ProjectionStatus
from pylog.patterns.pubsub import AsyncTopic, Topic
from pylog.patterns.queue import AsyncQueue, Queue, QueueStats, RejectedError
from pylog.patterns.registry import Schemas, SchemaVersion
from pylog.patterns.relay import Relay
from pylog.patterns.replies import PendingReply
from pylog.patterns.retry import Retry, expo
from pylog.patterns.rooms import RoomEntry, Rooms
from pylog.patterns.rpc import AsyncRpc, Rpc
from pylog.patterns.saga import Saga
from pylog.patterns.saga_commands import Context, serve
from pylog.patterns.saga_handle import SagaHandle
from pylog.patterns.saga_journal import Moment, SagaEntry
from pylog.patterns.saga_steps import Step
from pylog.patterns.schema import Schema, schema_of
from pylog.patterns.server import AsyncServer, Server
from pylog.patterns.state import Change, State
from pylog.patterns.subscription import AsyncSubscription, Subscription
from pylog.patterns.task import CurrentTask, Task, current_task
from pylog.patterns.task_status import TaskResult, TaskStatus

__all__ = [
    "ANY",
    "EXISTS",
    "NO_STREAM",
    "App",
    "AppendResult",
    "AsyncBus",
    "AsyncQueue",
    "AsyncRpc",
    "AsyncServer",
    "AsyncSubscription",
    "AsyncTopic",
    "Audit",
    "AuditEntry",
    "Break",
    "Bus",
    "Change",
    "Context",
    "CurrentTask",
    "DeadLetters",
    "Event",
    "EventStore",
    "Folded",
    "Head",
    "Idempotency",
    "Inflow",
    "KeyClaim",
    "KeyEntry",
    "Letter",
    "Message",
    "Moment",
    "NewEvent",
    "Outbox",
    "Parked",
    "PendingReply",
    "Projection",
    "ProjectionStatus",
    "Queue",
    "QueueStats",
    "Reason",
    "RejectedError",
    "Relay",
    "Request",
    "Retry",
    "RoomEntry",
    "Rooms",
    "Rpc",
    "RpcStats",
    "Saga",
    "SagaEntry",
    "SagaHandle",
    "Schema",
    "SchemaVersion",
    "Schemas",
    "Server",
    "ServerStats",
    "State",
    "Stats",
    "Step",
    "StoredEvent",
    "StreamState",
    "Subscription",
    "Task",
    "TaskResult",
    "TaskStatus",
    "Topic",
    "current_task",
    "event",
    "expo",
    "schema_of",
    "serve",
]
