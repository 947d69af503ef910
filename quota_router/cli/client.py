"""
The way to the running daemon.

Law: a token is sent only over a connection whose other end is a loopback address, judged once it stands and before a byte is sent;
no proxy is asked, no redirect followed.
Never: reads the ledger; what a command shows, the daemon has said.
"""

import http.client
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from quota_router.cli.common import CommandFailed, Exit
from quota_router.core.secrets import Secret

if TYPE_CHECKING:
    from quota_router.config import Loaded

URL_VARIABLE = "QUOTA_ROUTER_URL"
TOKEN_VARIABLE = "QUOTA_ROUTER_TOKEN"  # noqa: S105 -- a variable's name
TIMEOUT_S = 30
ANSWER_MAX_BYTES = 67_108_864
PAGE_ITEMS = 1_000

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- not bound to: such a listener is reached over loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the daemon said. `value` is its JSON."""

    status: int
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Speaks with one daemon."""

    url: str
    """`http://HOST:PORT`"""
    token: Secret | None
    """`None`: none was found; public paths work without"""
    token_hint: str = field(default="", repr=False)
    """where a token would have been found"""

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 -- the API's JSON
        """
        Read one answer.

        Raises:
            CommandFailed: there is no daemon, or it refuses.
        """
        return self._accepted(self.ask("GET", f"{path}?{urlencode(query)}" if query else path))

    def items(self, path: str) -> list[dict[str, Any]]:
        """Read a list, page after page. Raises `CommandFailed`."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get(path, {"limit": str(PAGE_ITEMS), **({"cursor": cursor} if cursor else {})})
            found += page["items"]
            cursor = page.get("next")
            if cursor is None:
                return found

    def post(self, path: str, value: object, *, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Any:  # noqa: ANN401 -- the API's JSON
        """Send a JSON body, under an idempotency key if there is one. Raises `CommandFailed`."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key is not None else {})
        return self._accepted(self._ask("POST", path, json.dumps(value).encode(), headers, timeout_s=timeout_s))

    def edit(self, method: str, path: str, value: object | None, version: int) -> Any:  # noqa: ANN401 -- likewise
        """Edit the row that was read at *version*. Raises `CommandFailed`; also when somebody else was quicker."""
        body = None if value is None else json.dumps(value).encode()
        headers = {"If-Match": f'"{version}"'} | ({} if value is None else {"Content-Type": "application/json"})
        return self._accepted(self._ask(method, path, body, headers))

    def delete(self, path: str) -> Any:  # noqa: ANN401 -- likewise
        """Delete what has no versions. Raises `CommandFailed`."""
        return self._accepted(self.ask("DELETE", path))

    def post_toml(self, path: str, text: str, query: Mapping[str, str]) -> Any:  # noqa: ANN401 -- the API's JSON
        """Send a catalog written as TOML. Raises `CommandFailed`."""
        return self._accepted(self.ask("POST", f"{path}?{urlencode(query)}", text.encode(), "application/toml"))

    def is_up(self) -> bool:
        """Say whether a daemon answers."""
        try:
            return self.ask("GET", "/healthz", is_public=True).status == HTTPStatus.OK
        except CommandFailed as failed:
            if failed.exit_code is Exit.UNREACHABLE:
                return False
            raise

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        *,
        is_public: bool = False,
    ) -> Answer:
        """
        Ask, and return the answer whatever its status.

        Raises:
            CommandFailed: nobody answers, or not a quota_router; the address is no loopback; there is no token.
        """
        return self._ask(method, path, body, {"Content-Type": content_type} if content_type else {}, is_public=is_public)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        is_public: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
        try:
            connection.connect()
            credentials = {} if is_public else self._credentials(connection)
            connection.request(method, path, body, {**credentials, **headers})
            response = connection.getresponse()
            payload = response.read(ANSWER_MAX_BYTES)
            return Answer(status=response.status, value=json.loads(payload))
        except (OSError, http.client.HTTPException) as exc:
            message = f"No daemon answers at {self.url}. Start one with `quota-router serve`."
            raise CommandFailed(message, Exit.UNREACHABLE) from exc
        except ValueError as exc:
            raise CommandFailed(f"What answers at {self.url} is not quota_router.", Exit.UNREACHABLE) from exc
        finally:
            connection.close()

    def _credentials(self, connection: http.client.HTTPConnection) -> dict[str, str]:
        peer = connection.sock.getpeername()[0]
        if not ipaddress.ip_address(peer.partition("%")[0]).is_loopback:
            raise CommandFailed(
                f"{self.url} is no loopback address, and the token is sent to those only. Run this on the daemon's own host,"
                f" or through an SSH tunnel with {URL_VARIABLE}=http://127.0.0.1:PORT."
            )
        if self.token is None:
            raise CommandFailed(f"A daemon answers at {self.url}, but no token was found. {self.token_hint}")
        return {"Authorization": f"Bearer {self.token.reveal()}"}

    def _accepted(self, answer: Answer) -> Any:  # noqa: ANN401 -- the API's JSON
        if answer.status < HTTPStatus.BAD_REQUEST:
            return answer.value
        raise refused(answer, self)


def refused(answer: Answer, client: Client) -> CommandFailed:
    """Turn an error of the API (RFC 9457) into a sentence and an exit code."""
    problem = answer.value if isinstance(answer.value, dict) else {}
    sentence = str(problem.get("detail") or f"{client.url} answers with status {answer.status}.")
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return CommandFailed(f"The daemon at {client.url} does not know this token. {client.token_hint}")
    if problem.get("code") == "bad_config":
        return CommandFailed(sentence, Exit.BAD_CONFIG)
    codes: dict[int, Exit] = {HTTPStatus.NOT_FOUND: Exit.NOT_FOUND, HTTPStatus.BAD_REQUEST: Exit.USAGE}
    return CommandFailed(sentence, codes.get(answer.status, Exit.FAILURE))


def path_of(*parts: str) -> str:
    """Build a path of the API; names with slashes are encoded."""
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


def find_daemon(loaded: "Loaded", environ: Mapping[str, str]) -> Client:
    """
    Find where the daemon listens and what it knows us by.

    Raises:
        CommandFailed: $QUOTA_ROUTER_URL is no URL, or the port is not known.
        ConfigError: the admin token is set wrongly.
    """
    remedy = "Correct or unset" if environ.get(TOKEN_VARIABLE) else "Set"
    return Client(
        url=find_url(loaded, environ),
        token=find_token(loaded, environ),
        token_hint=f"{remedy} {TOKEN_VARIABLE}, or run this as the user of the daemon: its token is in"
        f" {loaded.settings.admin_token_file}.",
    )


def find_url(loaded: "Loaded", environ: Mapping[str, str]) -> str:
    """Return `http://HOST:PORT`, from $QUOTA_ROUTER_URL or `[server] listen`. Raises `CommandFailed`."""
    said = environ.get(URL_VARIABLE)
    if said:
        try:
            parts = urlsplit(said)
            is_usable = parts.scheme == "http" and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise CommandFailed(f"{URL_VARIABLE} is not a URL such as http://127.0.0.1:4141.", Exit.BAD_CONFIG)
        return f"http://{urlsplit(said).netloc}"
    host, port = loaded.settings.listen_host, loaded.settings.listen_port
    if port == 0:
        raise CommandFailed(
            f"`[server] listen` leaves the port open. Say where the daemon is: {URL_VARIABLE}=http://127.0.0.1:PORT."
        )
    host = _ANY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def find_token(loaded: "Loaded", environ: Mapping[str, str]) -> Secret | None:
    """Find the admin's token, else the caller's, else the one the daemon made. Raises `ConfigError`."""
    from quota_router import config  # noqa: PLC0415 -- loaded by now

    admins = config.admin_token(environ, Secret)
    return (
        admins or callers_token(environ) or config.Credentials(environ, Secret).resolve(f"file:{loaded.settings.admin_token_file}")
    )


def callers_token(environ: Mapping[str, str]) -> Secret | None:
    """Read $QUOTA_ROUTER_TOKEN."""
    from quota_router import config  # noqa: PLC0415 -- loaded by now

    return config.Credentials(environ, Secret).resolve(f"env:{TOKEN_VARIABLE}")
