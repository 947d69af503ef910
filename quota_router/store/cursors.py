"""
Where the next page of a list begins, as text that travels in a URL.

Law: a cursor names a place in an order, not a number of rows to skip: what is added meanwhile moves no item to another page.
Never: keeps anything on our side.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from quota_router.errors import InvalidRequest

T = TypeVar("T")


def write_cursor(*place: str | int) -> str:
    """The place after which the next page begins, URL-safe."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_cursor(cursor: str, shape: type[T]) -> T:
    """
    Read back what `write_cursor` wrote.

    Raises:
        InvalidRequest: it is none of ours.
    """
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=shape)
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise InvalidRequest("`cursor` is not one that we gave: take `next` of the page before.", param="cursor") from exc
