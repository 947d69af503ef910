"""
What the operator wants: providers, models, the attachments between them, limits, callers.

Law: a `Catalog` is an immutable snapshot; whoever holds one sees one consistent world until he takes the next.
Never: keeps a secret (credentials are references), nor knows what an upstream said or what was spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from quota_router.core.limits import Limit
from quota_router.core.pricing import PriceTable

DEFAULT_MODEL = "default"
"""The model that a pool makes, and that a call without a model falls to when nothing else is configured."""
ADMIN = "admin"
"""The caller that the admin token stands for; the file cannot make another."""


class Family(StrEnum):
    """The wire dialect a provider answers in and a model is served in."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Network(StrEnum):
    """Which addresses a provider may resolve to; judged at connect time."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"


class Billing(StrEnum):
    """`METERED`: every token costs. `FLAT`: a subscription, asks and posts 0 usd and keeps a shadow cost."""

    METERED = "metered"
    FLAT = "flat"


class Strategy(StrEnum):
    """How rungs of one tier are ordered."""

    PRIORITY = "priority"


class ManagedBy(StrEnum):
    """Who may edit a row."""

    FILE = "file"
    API = "api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One configured way to an upstream."""

    name: str
    family: Family
    vendor: str
    """how its headers and errors are read; the family's name when nothing closer is known"""
    account: str
    """what quotas belong to"""
    base_url: str
    """what the vendor's SDK takes, without a trailing slash: openai with /v1, anthropic without"""
    credential_ref: str
    """`env:NAME`, `file:PATH`, `cred:NAME` or `none`"""
    network: Network = Network.PUBLIC
    allow: tuple[str, ...] = ()
    """`ADDRESS:PORT` or `NET/BITS:PORT` permitted beside the policy"""
    billing: Billing = Billing.METERED
    enabled: bool = True
    paused: bool = False
    default_upstream_model: str | None = None
    """the upstream name of attachments that give none; `None`: the model's own name"""
    display_name: str = ""
    description: str = ""
    managed_by: ManagedBy = ManagedBy.FILE
    version: int = 1

    @property
    def is_keyless(self) -> bool:
        """A local provider that was declared to need no credential."""
        return self.credential_ref == "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One rung of a model: this provider serves it."""

    model: str
    provider: str
    priority: int
    """lower is tried first; equal priority is one tier"""
    position: int
    """order inside the tier"""
    upstream_model: str
    weight: int = 1
    price: PriceTable | None = None
    """an override for this attachment alone; `None`: the model's, else the price book's"""
    unmetered: bool = False
    """an unknown price is accepted under a usd limit"""
    enabled: bool = True

    @property
    def subject(self) -> str:
        """How a limit names it."""
        return f"attachment:{self.model}/{self.provider}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The name a caller asks for."""

    name: str
    family: Family
    attachments: tuple[Attachment, ...]
    """by priority, then position: the ladder"""
    strategy: Strategy = Strategy.PRIORITY
    display_name: str = ""
    aliases: tuple[str, ...] = ()
    capabilities: tuple[str, ...] | None = None
    """`None`: unknown"""
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    fallbacks: tuple[str, ...] = ()
    price: PriceTable | None = None
    enabled: bool = True
    managed_by: ManagedBy = ManagedBy.FILE
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A client identity. Its token is known only by its digest."""

    name: str
    token_sha256: str
    """lower-case hex"""
    scopes: tuple[str, ...] = ("call",)
    enabled: bool = True
    managed_by: ManagedBy = ManagedBy.FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """One snapshot of everything the operator wants, and the look-ups a call needs."""

    epoch: int = 0
    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    callers: Mapping[str, Caller] = field(default_factory=dict)
    default_model: str | None = None
    _by_alias: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _limits_by_subject: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_alias = {alias: model.name for model in self.models.values() for alias in model.aliases}
        by_subject: dict[str, tuple[Limit, ...]] = {}
        for limit in self.limits:
            by_subject[limit.subject] = (*by_subject.get(limit.subject, ()), limit)
        object.__setattr__(self, "_by_alias", by_alias)
        object.__setattr__(self, "_limits_by_subject", by_subject)

    def find_model(self, name: str) -> Model | None:
        """
        The model of that name or alias.

        Returns:
            `None` when there is none, when it is disabled, or when it has no attachment: such a model is hidden.
        """
        model = self.models.get(name) or self.models.get(self._by_alias.get(name, ""))
        return model if model is not None and model.enabled and model.attachments else None

    def limits_of(self, subjects: tuple[str, ...]) -> tuple[Limit, ...]:
        """Every limit set on any of *subjects* (`everyone`, `provider:N`, …), in the order of the subjects."""
        found = self._limits_by_subject
        return tuple([limit for subject in subjects if subject in found for limit in found[subject]])
