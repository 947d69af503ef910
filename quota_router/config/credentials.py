"""
References to secrets, and where each leads.

Law: a file holds references, never keys; what is written instead of a reference is refused without being repeated.
Never: keeps a secret it has read, so that a rotated one is seen at the next call. A secret that is not there is `None`, no error.

Decision 2026-11 -- the type that seals a secret is an argument (`Secret` of the core): this room lies below the core.
    Look again if the floors are drawn anew.
"""

import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from quota_router.errors import ConfigError

ADMIN_TOKEN = "QUOTA_ROUTER_ADMIN_TOKEN"  # noqa: S105 -- a variable's name
ADMIN_TOKEN_FILE = "QUOTA_ROUTER_ADMIN_TOKEN_FILE"  # noqa: S105 -- likewise
SECRET_MAX_BYTES = 65_536
"""More is no key, and whoever points at a large file or a device has made a mistake."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_REFERENCE = re.compile(rf"env:{_VARIABLE.pattern}|file:[^\0-\x1f]+|cred:[A-Za-z0-9_][A-Za-z0-9_.-]*|none")
_HOW_TO = 'put the key into an environment variable or a file and write "env:NAME", "file:PATH", "cred:NAME" or "none".'

SealedT = TypeVar("SealedT")

log = structlog.get_logger()


def check_reference(reference: str) -> str:
    """
    Accept a reference as it is.

    Raises:
        ValueError: it is none; the sentence does not repeat it, as it may be the key itself.
    """
    if reference.startswith("enc:"):
        raise ValueError(f"credentials in the database (enc:) are not supported by this version yet: {_HOW_TO}")
    if not _REFERENCE.fullmatch(reference):
        raise ValueError(f"a credential is a reference, never the key itself: {_HOW_TO}")
    return reference


def check_variable(name: str) -> str:
    """
    Accept the name of an environment variable.

    Raises:
        ValueError: it is none; the sentence does not repeat it, as it may be the key itself.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "api_key_env is the name of an environment variable, never the key itself: write one such as OPENAI_API_KEY."
        )
    return name


def check_env_name(name: str) -> str:
    """
    Accept the name of a variable that a program is given.

    Raises:
        ValueError: it is none.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError("a variable is named by letters, digits and _ alone, such as CLAUDE_CONFIG_DIR.")
    return name


class Credentials(Generic[SealedT]):
    """
    Reads the secret behind a reference, anew each time.

    Args:
        environ: the variables that `env:` reads, with $CREDENTIALS_DIRECTORY for `cred:` (systemd.exec(5), read 2026-11-20).
        seal: what a secret is wrapped in before it leaves this room.
    """

    def __init__(self, environ: Mapping[str, str], seal: Callable[[str], SealedT]) -> None:
        self._environ = environ
        self._seal = seal

    def resolve(self, reference: str) -> SealedT | None:
        """The secret; `None`: there is none (`no_credential`), or it could not be sent in a header."""
        kind, _, rest = reference.partition(":")
        match kind:
            case "env":
                text = self._environ.get(rest)
            case "file":
                text = _read(Path(rest).expanduser())
            case "cred":
                directory = self._environ.get("CREDENTIALS_DIRECTORY")
                text = _read(Path(directory) / rest) if directory else None
            case _:
                text = None
        secret = (text or "").strip()
        is_sendable = bool(secret) and secret.isascii() and secret.isprintable()
        return self._seal(secret) if is_sendable else None


def admin_token(environ: Mapping[str, str], seal: Callable[[str], SealedT]) -> SealedT | None:
    """
    The admin token the operator has set; `None`: none is set, and the daemon makes its own.

    Raises:
        ConfigError: it is set twice, or set to a file that holds none.
    """
    path = environ.get(ADMIN_TOKEN_FILE)
    if path and environ.get(ADMIN_TOKEN):
        raise ConfigError(f"{ADMIN_TOKEN} and {ADMIN_TOKEN_FILE} are both set: keep one of them.")
    reference = f"file:{path}" if path else f"env:{ADMIN_TOKEN}"
    token = Credentials(environ, seal).resolve(reference)
    if token is None and (path or environ.get(ADMIN_TOKEN)):
        raise ConfigError(f"{ADMIN_TOKEN_FILE if path else ADMIN_TOKEN} leads to no token: give it one line of printable ASCII.")
    return token


def keep_admin_token(path: Path, seal: Callable[[str], SealedT]) -> SealedT:
    """
    Read the admin token at *path*, or make one there, in a file that only the owner reads.

    Raises:
        ConfigError: it can neither be read nor made, or the file holds none.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        kept = Credentials({}, seal).resolve(f"file:{path}")
        if kept is None:
            raise ConfigError(f"{path} holds no admin token that this user can read: remove it, and a new one is made.") from None
        return kept
    except OSError as exc:
        raise ConfigError(f"The admin token cannot be kept in {path}: {exc.strerror}. $XDG_STATE_HOME says where.") from exc
    token = f"qr_admin_{secrets.token_urlsafe(32)}"
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
    log.info("an admin token was made", action="admin_token_made", file=str(path))
    return seal(token)


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_MAX_BYTES + 1)
        return content.decode() if len(content) <= SECRET_MAX_BYTES else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: nobody knows whose home ~ is
        return None
