"""Types of events, dotted, and the patterns that match them.

    user.created      itself
    user.*            user.created, and not user.address.changed
    user.**           both, and not user
    **                every type
"""

from collections.abc import Callable

from pylog import ConfigurationError

LENGTH_MAX = 255
FOREIGN = frozenset("#+>?[]{}")    # of AMQP, MQTT, NATS and shells: would match nothing, silently
MANY = ""    # segments, or none: what ** is behind its first


def check_type(name: object) -> str:
    """Returns the type of an event. Raises ConfigurationError, TypeError."""
    text = _checked(name, "the type of an event")
    if "*" in text:
        raise ConfigurationError(f"an event cannot be of the type {text!r}: * is for those who "
                                 "listen; name one type", option="type", value=name)
    return text


def matcher(pattern: object) -> Callable[[str], bool]:
    """Says of a type whether the pattern means it. Raises as `check_type`.

        >>> [matcher("user.*")(one) for one in ("user.created", "user.a.b", "user")]
        [True, False, False]
    """
    words: list[str] = []
    for one in _checked(pattern, "a pattern").split("."):
        if "*" in one and one not in ("*", "**"):
            raise ConfigurationError(
                f"{one!r} in the pattern {pattern!r} is neither a name nor a wildcard: * stands "
                "for one whole segment, ** for one or more", option="pattern", value=pattern)
        words += ("*", MANY) if one == "**" else (one,)
    return lambda kind: _matches(words, kind.split("."))


def _matches(words: list[str], segments: list[str]) -> bool:
    """Goes back to the last MANY only, so that no pattern takes more than their product."""
    place = at = 0
    many = retry = -1
    while at < len(segments):
        word = words[place] if place < len(words) else None
        if word == MANY:
            many, retry = place, at
            place += 1
        elif word in ("*", segments[at]):
            place += 1
            at += 1
        elif many >= 0:
            retry += 1
            place, at = many + 1, retry
        else:
            return False
    return all(word == MANY for word in words[place:])


def _checked(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    shown = name if len(name) <= 60 else name[:57] + "..."
    if not 0 < len(name) <= LENGTH_MAX or not all(name.split(".")):
        raise ConfigurationError(f"{what} cannot be {shown!r}: it is words with dots between, as "
                                 f"user.created, {LENGTH_MAX} characters at most", option="type",
                                 value=name)
    if not name.isprintable() or " " in name:
        raise ConfigurationError(f"{what} cannot be {shown!r}: use letters, digits, '-' and '_', "
                                 "and dots between", option="type", value=name)
    if found := FOREIGN.intersection(name):
        raise ConfigurationError(
            f"{what} cannot be {shown!r}: {min(found)!r} is a wildcard elsewhere and means nothing "
            "here; * stands for one segment, ** for one or more", option="type", value=name)
    return name
