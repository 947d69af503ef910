"""
A secret that is hard to spill.

Law: the text leaves only through `reveal()`, which is called where a header is built and nowhere else.
Never: shows itself in a log, a traceback, a pickle or JSON; compares in a time that depends on the text.
"""

from hmac import compare_digest
from typing import Never

_MASK = "<secret>"


class Secret:
    """A provider's credential or the admin token."""

    __slots__ = ("__text",)
    # What is compared in constant time is not to be found by its hash.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself."""
        return self.__text

    def __repr__(self) -> str:
        return _MASK

    def __format__(self, format_spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        """Constant-time; equal only to another `Secret`, never to plain text."""
        return isinstance(other, Secret) and compare_digest(self.__text.encode(), other.__text.encode())

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("A Secret is not copied, pickled or serialised.")
