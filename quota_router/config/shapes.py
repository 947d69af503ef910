"""
The shapes of the file: which keys there are and what kind of value each takes.

Law: strict and closed. A key that nothing reads is refused.
Never: knows what a value means: names, units, prices and subjects are the core's.
"""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from quota_router.config.credentials import check_env_name, check_reference, check_variable
from quota_router.errors import did_you_mean

DATABASES = ("sqlite+aiosqlite:///", "postgresql+psycopg://", "postgresql+asyncpg://")
LONGEST_S = 7 * 86_400
"""No time-out of ours is meant to be longer than a week."""

_LONGEST_TEXT = 4_096
_LONGEST_POINTER = 256
_LARGEST_COUNT = 2**53 - 1
"""What JSON and every database carry exactly."""
_LARGEST_PORT = 65_535
_DEFAULT_LISTEN = "127.0.0.1:4141"


def _check_text(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("text is not empty and has no line breaks or control characters.")
    return text


def _check_note(text: str) -> str:
    if "\0" in text:
        raise ValueError("text has no NUL characters: PostgreSQL cannot keep them.")
    return text


def _read_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number of seconds")  # noqa: TRY004 -- pydantic takes ValueError
    return float(value)


def _check_amount(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("must be a number, in quotes or not")  # noqa: TRY004 -- pydantic takes ValueError
    return value


def _check_command(value: object) -> object:
    words = value if isinstance(value, list) else [value]
    if not all(isinstance(word, str) and len(word) <= _LONGEST_TEXT and "\0" not in word for word in words):
        raise ValueError("must be a list of words, each in quotes")
    return value


def _check_pick(value: object) -> object:
    table = value if isinstance(value, dict) else {"at": value}
    when = table.get("when", {})
    texts = [table.get("at"), *when, *when.values()] if isinstance(when, dict) else [None]
    if not {"at", "when"}.issuperset(table) or not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts):
        raise ValueError('must be a JSON pointer in quotes, or { at = "/…", when = { "/…" = "…" } }')
    return value


def _check_anchor(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str | date):
        raise ValueError("must be a word, a day of the month or an instant")  # noqa: TRY004 -- pydantic takes ValueError
    return value


def _check_listen(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port[:6]) > _LARGEST_PORT:
        raise ValueError(f"{listen!r} is not HOST:PORT: write one such as {_DEFAULT_LISTEN!r}.")
    return listen


def _check_database(url: str) -> str:
    # The URL is not echoed: it may hold a password.
    if not url.startswith(DATABASES):
        raise ValueError(f"a database URL begins with one of {', '.join(DATABASES)}.")
    return url


def _split_words(value: object) -> object:
    """A variable has no lists: commas part the words there."""
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_check_text)]
Note = Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_check_note)]
Count = Annotated[int, Field(gt=0, le=_LARGEST_COUNT)]
Seconds = Annotated[float, BeforeValidator(_read_seconds), Field(gt=0, le=LONGEST_S)]
Retries = Annotated[int, Field(ge=0, le=20)]
Amount = Annotated[int | str | Decimal, PlainValidator(_check_amount)]
Pointer = Annotated[str, Field(max_length=_LONGEST_POINTER), AfterValidator(_check_note)]
Word = Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_check_note)]
Condition = Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_check_note)]
Command = Annotated[str | list[Word], PlainValidator(_check_command)]
Pick = Annotated[Any, PlainValidator(_check_pick)]
Picks = Annotated[Any, PlainValidator(lambda said: [*map(_check_pick, said)] if isinstance(said, list) else _check_pick(said))]
Reference = Annotated[str, AfterValidator(check_reference)]
Variable = Annotated[str, AfterValidator(check_variable)]
EnvName = Annotated[str, AfterValidator(check_env_name)]


class Table(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, table: object) -> object:
        for key in table if isinstance(table, dict) else ():
            if key not in cls.model_fields:
                sentence = f"key {key!r} is not known: {did_you_mean(key, cls.model_fields)}"
                raise PydanticCustomError("unknown_key", "{sentence}", {"key": key, "sentence": sentence})
        return table


class ServerTable(Table):
    """`[server]`: how the daemon runs. Read at start alone; variables `QUOTA_ROUTER_SERVER__KEY` go before it."""

    listen: Annotated[Text, AfterValidator(_check_listen)] = _DEFAULT_LISTEN
    database: Annotated[Text, AfterValidator(_check_database)] | None = Field(default=None, repr=False)
    """`None`: SQLite in the state directory; not shown, as it may hold a password"""
    durability: Literal["power", "process"] = "power"
    max_call_s: Seconds = 900.0
    settle_wait_s: Seconds = 10.0
    drain_s: Seconds = 30.0
    max_body_bytes: Count = 33_554_432
    connect_timeout_s: Seconds = 10.0
    first_byte_timeout_s: Seconds = 60.0
    gap_timeout_s: Seconds = 120.0
    drain_tokens: Count = 20_000
    sweep_s: Seconds = 5.0
    stale_after_s: Seconds = 900.0
    retries_lone: Retries = 5
    retries_member: Retries = 0
    allowed_hosts: Annotated[tuple[Text, ...], NoDecode, BeforeValidator(_split_words), Field(strict=False)] = ()
    api_networks: Annotated[
        tuple[Literal["private", "loopback"], ...], NoDecode, BeforeValidator(_split_words), Field(strict=False)
    ] = ()


class ServerSettings(ServerTable):
    """The settings in force."""

    state_dir: Path
    """where the default database, the admin token and the spill file live"""

    @property
    def database_url(self) -> str:
        """What SQLAlchemy opens."""
        return self.database or f"sqlite+aiosqlite:///{self.state_dir / 'ledger.db'}"

    @property
    def admin_token_file(self) -> Path:
        """Where a daemon keeps the token it has made, when the operator has set none."""
        return self.state_dir / "admin-token"

    @property
    def listen_host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        """0: any free one."""
        return int(self.listen.rpartition(":")[2])


class LimitTable(Table):
    """What budgets and quotas share."""

    unit: Text
    limit: Amount
    window: Text | None = None
    anchor: Annotated[Any, PlainValidator(_check_anchor)] = None
    timezone: Text | None = None
    enforcement: Text | None = None


class BudgetTable(LimitTable):
    """`[[budgets]]`."""

    name: Text
    subject: Text


class PollerTable(Table):
    """`[[providers.X.pollers]]`: a preset, or an address and where in its answer the numbers stand."""

    name: Text
    preset: Text | None = None
    url: Text | None = None
    credential: Reference | None = None
    used: Pointer | None = None
    limit: Pointer | None = None
    share: Pointer | None = None
    remaining: Pointer | None = None
    resets_at: Pointer | None = None
    scale: Amount | None = None
    unit: Text | None = None
    window: Text | None = None
    every_s: int | None = Field(default=None, gt=0, le=LONGEST_S)


class AnswerTable(Table):
    """`[providers.X.answer]`: where in what a program writes its answer stands."""

    format: Text | None = None
    text: Pick = None
    failed: Picks = None
    message: Picks = None
    status: Pick = None
    input_tokens: Pick = None
    cache_read_tokens: Pick = None
    cache_write_5m_tokens: Pick = None
    cache_write_1h_tokens: Pick = None
    output_tokens: Pick = None
    reasoning_tokens: Pick = None
    within: dict[Text, Text] = {}
    cost_usd: Pick = None


class ProviderTable(Table):
    """`[providers.X]`."""

    vendor: Text | None = None
    family: Text | None = None
    base_url: Text | None = None
    credential: Reference | None = None
    api_key_env: Variable | None = None
    network: Text | None = None
    allow: list[Text] = []
    billing: Text | None = None
    account: Text | None = None
    enabled: bool = True
    display_name: Note = ""
    description: Note = ""
    models: dict[str, Text] = {}
    model: Text | None = None
    quotas: list[LimitTable] = []
    reserve: Amount | None = None
    pause_at: Amount | None = None
    pace: bool = False
    quota_sources: list[Text] = []
    pollers: list[PollerTable] = []
    command: Text | None = None
    command_template: Command | None = None
    prompt_on_stdin: bool = False
    run_timeout_s: Seconds | None = None
    env: dict[EnvName, Note] = {}
    credential_env: EnvName | None = None
    answer: AnswerTable | None = None


class Prices(Table):
    """USD per million tokens, exact."""

    cost_per_million_input: Amount | None = None
    cost_per_million_output: Amount | None = None
    cost_per_million_cache_read: Amount | None = None
    cost_per_million_cache_write_5m: Amount | None = None
    cost_per_million_cache_write_1h: Amount | None = None
    cost_per_million_reasoning: Amount | None = None
    unmetered: bool = False


class AttachmentTable(Prices):
    """One rung, when its provider's name does not say all."""

    enabled: bool = True

    provider: Text
    upstream_model: Text | None = None
    priority: int | None = Field(default=None, ge=0, le=1_000_000)
    weight: int = Field(default=1, ge=1, le=1_000_000)


def _form(*, is_nested: bool) -> Callable[[object], str | None]:
    def form(entry: object) -> str | None:
        if isinstance(entry, list) and not is_nested:
            return "<tier>"
        return "<name>" if isinstance(entry, str) else "<table>" if isinstance(entry, dict) else None

    return form


_Member = Annotated[
    Annotated[Text, Tag("<name>")] | Annotated[AttachmentTable, Tag("<table>")],
    Discriminator(_form(is_nested=True)),
]
_Entry = Annotated[
    Annotated[Text, Tag("<name>")] | Annotated[AttachmentTable, Tag("<table>")] | Annotated[list[_Member], Tag("<tier>")],
    Discriminator(_form(is_nested=False)),
]


class ModelTable(Prices):
    """`[[models]]`."""

    name: Text
    provider: Text | None = None
    attachments: list[_Entry] = []
    family: Text | None = None
    strategy: Text | None = None
    aliases: list[Text] = []
    fallbacks: list[Text] = []
    capabilities: list[Text] | None = None
    tags: list[Text] = []
    context_tokens: Count | None = None
    max_output_tokens: Count | None = None
    display_name: Note = ""


class CallerTable(Table):
    """`[[callers]]`."""

    name: Text
    token_sha256: Text
    scopes: list[Text] = []


class PoolEntry(Table):
    """One pair of a pool."""

    provider: Text
    model: Text | None = None


class RuleTable(Table):
    """`[[routing.rules]]`."""

    condition: Condition
    model: Text | None = None
    provider: Text | None = None
    strategy: Text | None = None
    share: Amount | None = None
    on_unusable: Text | None = None
    reason: Note | None = None


class RoutingTable(Table):
    """`[routing]`."""

    default_model: Text | None = None
    timezone: Text | None = None
    policy: Text | None = None
    models: list[PoolEntry] = []
    rules: list[RuleTable] = []
    routers: list[Text] = []


class StageTable(Table):
    """One stage of a workflow."""

    name: Text
    model: Text


class WorkflowTable(Table):
    """`[workflows.X]`."""

    stages: list[StageTable]


class FileShape(Table):
    """The whole file."""

    server: ServerTable = ServerTable()
    providers: dict[str, ProviderTable] = {}
    models: list[ModelTable] = []
    budgets: list[BudgetTable] = []
    callers: list[CallerTable] = []
    routing: RoutingTable = RoutingTable()
    workflows: dict[str, WorkflowTable] = {}
