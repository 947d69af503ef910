"""
What a caller may say of a call in headers of ours.

Law: each is checked before anything is held, and one that nobody knows is refused with the nearest that is: a misspelt cap caps
nothing.
Never: believes a header about who the caller is.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from quota_router.core.pricing import parse_usd_nusd
from quota_router.errors import InvalidRequest, did_you_mean

PREFIX = "x-quota-router-"
LABELS_MAX = 32
LABEL_MAX_CHARS = 128
HEADER_MAX_CHARS = 256
TIMEOUT_MAX_S = 86_400
NUMBER_MAX = 10**9

_RETRIES = "x-stainless-retry-count"
"""What the OpenAI and Anthropic SDKs say of their own retries."""
_TRUE, _FALSE = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no", ""})


def read_asked(headers: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """
    Read the headers of ours, as members of a `Call`.

    Raises:
        InvalidRequest: one of them is unknown or cannot be read.
    """
    asked: dict[str, Any] = {}
    for name in headers:
        if name[:15].lower() == PREFIX:
            word = name[15:].lower()
            reader = _READERS.get(word)
            if reader is None:
                raise InvalidRequest(f"`{PREFIX}{word}` is not known: {did_you_mean(word, _READERS)}", param=f"{PREFIX}{word}")
            member, read = reader
            asked[member] = read(f"{PREFIX}{word}", headers[name])
    if "timeout_s" in asked:
        asked["deadline"] = now + timedelta(seconds=asked.pop("timeout_s"))
    retries = headers.get(_RETRIES)
    if retries is not None and retries.isdecimal() and len(retries) < len(str(NUMBER_MAX)):
        asked.setdefault("retry_count", int(retries))
    return asked


def read_word(name: str, value: str) -> str | None:
    """A name: short and printable; `None`: empty, which says nothing."""
    if len(value) > HEADER_MAX_CHARS or not value.isprintable():
        raise InvalidRequest(f"`{name}` must be at most {HEADER_MAX_CHARS} printable characters.", param=name)
    return value or None


def _labels(name: str, value: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(label for part in value.split(",") if (label := part.strip())))
    if len(labels) > LABELS_MAX or any(len(label) > LABEL_MAX_CHARS or not label.isprintable() for label in labels):
        raise InvalidRequest(
            f"`{name}` takes at most {LABELS_MAX} words of at most {LABEL_MAX_CHARS} printable characters.", param=name
        )
    return labels


def _requires(name: str, value: str) -> frozenset[str]:
    return frozenset(_labels(name, value))


def _integer(name: str, value: str, least: int = -NUMBER_MAX) -> int:
    digits = value.strip().removeprefix("-")
    number = int(value) if digits.isascii() and digits.isdecimal() and len(digits) <= len(str(NUMBER_MAX)) else None
    if number is None or not least <= number <= NUMBER_MAX:
        raise InvalidRequest(f"`{name}` must be an integer from {least} to {NUMBER_MAX}.", param=name)
    return number


def _count(name: str, value: str) -> int:
    return _integer(name, value, least=0)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise InvalidRequest(f"`{name}` must be seconds, more than 0 and at most {TIMEOUT_MAX_S}.", param=name)
    return seconds


def _wait(name: str, value: str) -> float:
    return 0.0 if value.strip() in {"0", "0.0"} else _seconds(name, value)


def _usd(name: str, value: str) -> int:
    try:
        amount_nusd = parse_usd_nusd(value)
    except ValueError:
        amount_nusd = -1
    if amount_nusd < 0:
        raise InvalidRequest(f"`{name}` must be a decimal number of US dollars, such as 0.25.", param=name)
    return amount_nusd


def _flag(name: str, value: str) -> bool:
    word = value.strip().lower()
    if word not in _TRUE | _FALSE:
        raise InvalidRequest(f"`{name}` must be true or false.", param=name)
    return word in _TRUE


_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "labels": ("labels", _labels),
    "priority": ("priority", _integer),
    "task-id": ("task_id", read_word),
    "retry-count": ("retry_count", _count),
    "requires": ("requires", _requires),
    "workflow": ("workflow", read_word),
    "stage": ("stage", read_word),
    "session": ("session", read_word),
    "provider": ("pinned_provider", read_word),
    "timeout": ("timeout_s", _seconds),
    "max-wait": ("max_wait_s", _wait),
    "max-cost-usd": ("max_cost_nusd", _usd),
    "dry-run": ("dry_run", _flag),
}
"""After the prefix -> the member of the call, and how it is read."""
