"""
The list of prices that the operator has fetched: one file in the state directory.

Law: the file is exchanged as a whole, never written into, and keeps the list as it was read. One that cannot be read changes no
price, and it is said.
Never: fetches; judges a list.

Decision 2026-11 -- a file beside the ledger, against rows in it: a list is one thing that comes and goes as a whole, it can be
    written while the daemon has the ledger's lock, and losing it costs one `catalog refresh`. Daemons that share a server have one
    each, on its own host. Look again when prices are to be edited one by one, or over HTTP.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from quota_router.core.model_lists import read_models_dev
from quota_router.store.genai_list import read_genai
from quota_router.store.prices import PriceList

PRICE_FILE = "prices.json"
LIST_MAX_BYTES = 33_554_432
"""Of a list: the largest has some 3 MB."""
_FILE_MAX_BYTES = 2 * LIST_MAX_BYTES
_FORMAT = 1
_VERSION_DIGITS = 12


def read_list(text: bytes, read_at: datetime) -> PriceList:
    """
    Read a list of either source; which one shows in its shape.

    Args:
        text: as it was fetched.
        read_at: aware; the day of the version that every entry keeps, beside a digest of the text.

    Raises:
        ValueError: it is neither, or too large; the message is a sentence.
    """
    if len(text) > LIST_MAX_BYTES:
        raise ValueError(f"This list has more than {LIST_MAX_BYTES // 2**20} MiB.")
    version = f"{read_at.astimezone(UTC):%Y-%m-%d}.{hashlib.sha256(text).hexdigest()[:_VERSION_DIGITS]}"
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as exc:
        raise ValueError("This is no JSON.") from exc
    match document:
        case list():
            return read_genai(document, version)
        case dict():
            return read_models_dev(document, version)
        case _:
            raise ValueError("This is no list: neither genai-prices' data.json nor models.dev's api.json.")


@dataclass(slots=True, kw_only=True)
class PriceFile:
    """The file of one state directory, and what was last seen of it."""

    folder: Path
    _seen: tuple[int, int, int] | None = field(default=None, init=False)
    """inode, size, time of change; `None`: it was not there"""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / PRICE_FILE

    def has_changed(self) -> bool:
        """Whether it is another one than at the last look; this is the look."""
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError:
            seen = None
        is_other, self._seen = seen != self._seen, seen
        return is_other

    def load(self) -> PriceList | None:
        """
        Read the list that is kept.

        Returns:
            `None`: there is none.

        Raises:
            ValueError: it cannot be read; the message is a sentence.
        """
        try:
            with self.path.open("rb") as file:
                kept = json.loads(file.read(_FILE_MAX_BYTES))
            if kept["format"] != _FORMAT:
                raise ValueError(f"{self.path} is of another version: run `quota-router catalog refresh`.")
            return read_list(kept["list"].encode(), datetime.fromisoformat(kept["read_at"]))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ValueError(f"{self.path} cannot be read: {exc.strerror}.") from exc
        except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as exc:
            raise ValueError(f"{self.path} is no list that was kept here: run `quota-router catalog refresh`.") from exc

    def keep(self, text: bytes, origin: str, read_at: datetime) -> None:
        """Put a list in the place of the one that is kept. *origin*: where it is from, for people. Raises `OSError`."""
        kept: dict[str, Any] = {"format": _FORMAT, "from": origin, "read_at": read_at.isoformat(), "list": text.decode()}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=f".{PRICE_FILE}-")  # the owner's alone
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def forget(self) -> bool:
        """Remove it; False: there was none. Raises `OSError`."""
        was_there = self.path.exists()
        self.path.unlink(missing_ok=True)
        return was_there
