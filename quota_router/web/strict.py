"""
Reading what the decision plane and the control plane are asked: JSON bodies, query parameters, words of both.

Law: what is not understood is refused, with one sentence that names the field and, where it can, the right word. Whatever bytes
come, the answer is a refusal and never a crash.
Never: repeats a value in a refusal.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from quota_router.dialects.json import read_object
from quota_router.errors import BodyTooLarge, InvalidRequest, MalformedBody, did_you_mean
from quota_router.store.reports import PAGE_MAX
from quota_router.web.bodies import read_body

BODY_MAX_BYTES = 262_144
"""Of a JSON body on these planes: the largest holds an upstream's error."""
FORMS = ("<name>", "<table>", "<tier>")
"""What shapes call the forms that a value may be sent in."""
KEY_MAX_CHARS = 256
_SHOWN_CHARS = 64
"""Of a name that somebody else wrote."""

Shape = TypeVar("Shape", bound="Strict")


class Strict(BaseModel):
    """A shape without room for what it does not name, nor for one kind where another is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


async def read_shape(request: web.Request, shape: type[Shape]) -> Shape:
    """
    Read a JSON body.

    Raises:
        MalformedBody: not one JSON object.
        InvalidRequest: a field is unknown, missing or not valid.
        BodyTooLarge: and what else `read_body` raises.
    """
    body = await read_body(request, BODY_MAX_BYTES)
    if len(body) > BODY_MAX_BYTES:
        raise BodyTooLarge(f"The body is larger than {BODY_MAX_BYTES} bytes: nothing asked here takes so many.")
    return read_json(body, shape)


def read_json(body: bytes, shape: type[Shape]) -> Shape:
    """
    Read a JSON body that is here already.

    Raises:
        MalformedBody: not one JSON object.
        InvalidRequest: a field is unknown, missing or not valid.
    """
    read_object(body)
    try:
        return shape.model_validate_json(body)
    except ValidationError as exc:
        raise _refusal(exc.errors(include_url=False, include_input=False)[0], shape) from exc


def read_key(request: web.Request) -> str | None:
    """Read `Idempotency-Key`; `None`: it was not sent. Raises `InvalidRequest`, as `check_key` says."""
    return check_key(request.headers.get("Idempotency-Key"))


def check_key(key: str | None) -> str | None:
    """
    Let a key pass, or none.

    Raises:
        InvalidRequest: it is empty, too long or not printable.
    """
    if key is not None and not (0 < len(key) <= KEY_MAX_CHARS and key.isprintable()):
        raise InvalidRequest(f"`Idempotency-Key` must be 1 to {KEY_MAX_CHARS} printable characters.", param="Idempotency-Key")
    return key


def read_query(request: web.Request, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """
    Read the query parameters that were given, each by its own reader, which raises `ValueError` with the end of a sentence.

    Raises:
        InvalidRequest: one is unknown, stands twice, or is not valid.
    """
    found: dict[str, Any] = {}
    for name, text in request.query.items():
        if name not in known:
            raise InvalidRequest(f"The query parameter {_shown(name)} is not known: {did_you_mean(name, known)}", param=name)
        if name in found:
            raise InvalidRequest(f"The query parameter `{name}` stands twice.", param=name)
        try:
            text.encode()  # what is no Unicode text, no database can look for
            found[name] = known[name](text)
        except UnicodeEncodeError as exc:
            raise InvalidRequest(f"`{name}` is not UTF-8.", param=name) from exc
        except (ValueError, OverflowError) as exc:
            raise InvalidRequest(f"`{name}` {exc}", param=name) from exc
    return found


def answer(shape: object, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(status=status, body=msgspec.json.encode(shape), content_type="application/json")


# --- readers of query parameters ----------------------------------------------------------------------------------------


def page_limit(text: str) -> int:
    """How many items of a list."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(PAGE_MAX)) and 1 <= int(text) <= PAGE_MAX):
        raise ValueError(f"must be a whole number from 1 to {PAGE_MAX}.")
    return int(text)


def printable(text: str) -> str:
    """A word without control characters."""
    if not text.isprintable():
        raise ValueError("must be printable.")
    return text


def flag(text: str) -> bool:
    """`true` or `false`."""
    if text not in {"true", "false"}:
        raise ValueError("must be true or false.")
    return text == "true"


def zone(text: str) -> ZoneInfo:
    """An IANA time zone."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:  # a folder of zones is an OSError
        raise ValueError("must be an IANA time zone such as Europe/Berlin.") from exc


def instant_in(tz: ZoneInfo) -> Callable[[str], datetime]:
    """An RFC 3339 instant, or a date, which means the beginning of that day in *tz*."""

    def read(text: str) -> datetime:
        try:
            at = datetime.fromisoformat(text)
            is_date = at.tzinfo is None and len(text) == len("2026-01-31")
            at = at.replace(tzinfo=tz) if is_date else at
            if at.tzinfo is not None:
                return at.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise ValueError("must be a date such as 2026-01-31, or an instant such as 2026-01-31T12:00:00Z (a + is written %2B).")

    return read


# --- one sentence for what does not fit ---------------------------------------------------------------------------------


def _refusal(details: ErrorDetails, shape: type[Strict]) -> MalformedBody | InvalidRequest:
    kind, path = details["type"], details["loc"]
    if kind == "json_invalid":
        return MalformedBody()
    # The last part of an unknown field is a word of the sender's, whatever it looks like.
    path = (*_without_forms(path[:-1]), path[-1]) if kind == "extra_forbidden" else _without_forms(path)
    param = ".".join(str(part)[:_SHOWN_CHARS] for part in path)
    if kind == "extra_forbidden":
        known = _fields_at(shape, path[:-1])
        return InvalidRequest(f"The field {_shown(param)} is not known: {did_you_mean(str(path[-1]), known)}", param=param)
    if kind == "missing":
        return InvalidRequest(f"The field `{param}` is missing.", param=param)
    said = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ").rstrip(".")
    must = "must be " if details["msg"].startswith("Input should be ") else ""
    return InvalidRequest(f"`{param}`: {must}{said}." if param else f"{said[:1].upper()}{said[1:]}.", param=param or None)


def _without_forms(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A path as the sender knows it: shapes with several forms put the form's own name into it."""
    return tuple(part for part in path if part not in FORMS)


def _fields_at(shape: type[Strict], path: tuple[str | int, ...]) -> list[str]:
    """The names that the shape knows at *path*."""
    for part in path:
        if isinstance(part, int):
            continue
        field = shape.model_fields.get(part)
        inner = list(_shapes(field.annotation)) if field else []
        if not inner:
            return []
        shape = inner[0]
    return sorted(shape.model_fields)


def _shapes(annotation: Any) -> Iterator[type[Strict]]:  # noqa: ANN401 -- whatever stands behind a colon
    """Every shape in an annotation, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _shapes(part)


def _shown(name: str) -> str:
    return f"`{name[:_SHOWN_CHARS]}`" if name.isprintable() else "that was sent"
