"""What a class takes: its options, as help() shows them, and what is said of one that it has not.

The options of kafka-python that mean nothing here are known by name, so that who passes one learns
why and what to do instead. docs/from-kafka-python.md has the same table.
"""

import functools
import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from pylog.topic import closest

Class = TypeVar("Class", bound=type)

_ADVICE = {
    "the first argument says where: a directory, or a Broker":
        "bootstrap_servers",
    "say it to the broker: Broker(path, auto_create_topics=...)":
        "allow_auto_create_topics",
    "leave it out: there is no connection":
        "api_version bootstrap_timeout_ms client_dns_lookup client_rack connections_max_idle_ms "
        "kafka_client max_in_flight_requests_per_connection proxy_url receive_buffer_bytes "
        "receive_message_max_bytes reconnect_backoff_max_ms reconnect_backoff_ms "
        "request_timeout_ms selector send_buffer_bytes socket_options socks5_proxy",
    "leave it out: the owner and the mode (0700) of the directory say who may":
        "security_protocol sasl_kerberos_domain_name sasl_kerberos_name "
        "sasl_kerberos_service_name sasl_mechanism sasl_oauth_token_provider sasl_plain_password "
        "sasl_plain_username ssl_cafile ssl_certfile ssl_check_hostname ssl_ciphers ssl_context "
        "ssl_crlfile ssl_keyfile ssl_password",
    "leave it out: nothing is tried again, an append has happened or has raised; max_block_ms "
    "bounds the wait for room in the buffer":
        "delivery_timeout_ms retries retry_backoff_ms",
    "leave it out: there are no transactions yet":
        "transaction_timeout_ms isolation_level",
    "leave it out: nothing is fetched ahead, records are read where they lie; max_poll_records "
    "bounds a poll":
        "enable_incremental_fetch_sessions fetch_max_bytes fetch_max_wait_ms fetch_min_bytes "
        "max_partition_fetch_bytes",
    "leave it out: each batch is checked, always":
        "check_crcs",
    "leave it out: the kernel tells who lives, and a handler may take hours; session_timeout_ms "
    "says how long a process may be stopped":
        "heartbeat_interval_ms max_poll_interval_ms",
    "set the topic's config max.message.bytes":
        "max_request_size",
    "leave it out: who changes topics tells all":
        "metadata_max_age_ms",
    "leave it out: auto-commit is a store in memory; what fails is logged":
        "default_offset_commit_callback",
    "leave it out: there are no internal topics":
        "exclude_internal_topics",
    "leave it out: nobody would see it; it is an option of consumers, whose group shows it":
        "client_id",
    "leave it out: metrics() has plain counters, since the object was made":
        "metric_group_prefix metric_reporters metrics_enabled metrics_num_samples "
        "metrics_sample_window_ms",
}
KAFKA_OPTIONS = {name: advice for advice, names in _ADVICE.items() for name in names.split()}


def takes_options(name: str, model: Any = None) -> Callable[[Class], Class]:
    """Gives a class its own `__init__`, which calls the class by its public name in the TypeError
    for an option that there is not, and says what to do instead.

    model: a class whose options these are too: what its text says of them is put into this one's,
    before the example, and where options are only passed on, help() has its signature.
    """
    def decorate(cls: Class) -> Class:
        changed: Any = cls
        own = _own_init(changed.__init__, name)
        signature = inspect.signature(own)
        if model is not None:
            changed.__doc__ = _with_options_of(cls, model)
            if any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
                signature = inspect.signature(model.__init__)
        known = set(signature.parameters)

        @functools.wraps(own)
        def init(self: Any, *arguments: Any, **options: Any) -> None:
            if unknown := options.keys() - known:
                raise TypeError(_refusal(name, min(unknown), known))
            own(self, *arguments, **options)

        changed.__init__ = init
        changed.__init__.__signature__ = signature
        return cls
    return decorate


def _own_init(inherited: Any, name: str) -> Any:
    """A copy, for Python's own TypeErrors name the function."""
    own = FunctionType(inherited.__code__, inherited.__globals__, "__init__",
                       inherited.__defaults__, inherited.__closure__)
    functools.update_wrapper(own, inherited)
    own.__kwdefaults__ = inherited.__kwdefaults__
    own.__qualname__ = f"{name}.__init__"
    return own


def _refusal(name: str, option: str, known: set[str]) -> str:
    advice = f": {KAFKA_OPTIONS[option]}" if option in KAFKA_OPTIONS else closest(option, known)
    return f"{name}.__init__() got an unexpected keyword argument {option!r}{advice}"


def _with_options_of(cls: type, model: type) -> str | None:
    if cls.__doc__ is None or model.__doc__ is None:    # python -OO
        return None
    own, theirs = ((inspect.cleandoc(one.__doc__ or "")).split("\n\n") for one in (cls, model))
    told = [one for one in theirs if re.match(r"[a-z_]+(, [a-z_]+)*: ", one)]
    example = next((i for i, one in enumerate(own) if one.lstrip().startswith(">>>")), len(own))
    return "\n\n".join(own[:example] + told + own[example:])
