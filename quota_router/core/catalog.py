"""
What the operator wants: providers, models, the attachments between them, limits, callers.

Law: a `Catalog` is an immutable snapshot; whoever holds one sees one consistent world until he takes the next.
Never: keeps a secret (credentials are references), nor knows what an upstream said or what was spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction

from quota_router.core.commands import CommandSpec
from quota_router.core.conditions import compile_kept
from quota_router.core.limits import Limit
from quota_router.core.pricing import PriceTable
from quota_router.core.rules import Rule, RuleBook
from quota_router.core.words import ManagedBy, OnUnusable, Strategy

__all__ = [
    "ADMIN",
    "DEFAULT_MODEL",
    "HEADERS",
    "Attachment",
    "Billing",
    "Caller",
    "Catalog",
    "Family",
    "ManagedBy",
    "Model",
    "Network",
    "OnUnusable",
    "Poller",
    "Provider",
    "RoutingRule",
    "Stage",
    "Strategy",
    "Workflow",
]

DEFAULT_MODEL = "default"
"""The model that a pool makes, and that a call without a model falls to when nothing else is configured."""
ADMIN = "admin"
"""The caller that the admin token stands for; the file cannot make another."""
HEADERS = "headers"
"""The source of quota readings that every answer brings along."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Poller:
    """A quota endpoint that is asked from time to time. Either `preset` or `url` is given; a preset knows the rest itself."""

    name: str
    """readings carry it as their source: `poller:NAME`"""
    preset: str | None = None
    url: str | None = None
    credential_ref: str | None = None
    """`None`: the provider's own"""
    used: str | None = None
    """where in the answer: a JSON pointer (RFC 6901, read 2026-11-20), as are the next four; `None`: it does not say"""
    limit: str | None = None
    share: str | None = None
    remaining: str | None = None
    resets_at: str | None = None
    scale: Fraction = Fraction(1)
    """what a number of the answer is multiplied with to come to the unit, such as 0.01 for percent or cents"""
    unit: str = "share"
    """a unit of limits, or `share`: a part of an unknown whole"""
    window: str = ""
    """the short name of the window it speaks of, such as `5h`"""
    every_s: int = 300


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
    """by the operator, until he resumes it; what `pause_at` does is worked out anew for every call and never stands here"""
    paused_reason: str = ""
    """in the operator's words"""
    reserve: Fraction = Fraction(0)
    """the share of each live window that is kept back"""
    pause_at: Fraction | None = None
    """the used share of a live window at which no new call is sent until it ends; `None`: none"""
    pace: bool = False
    """a live window is used up no faster than it passes"""
    quota_sources: tuple[str, ...] = (HEADERS,)
    """`headers`, and presets of pollers"""
    pollers: tuple[Poller, ...] = ()
    """asked beside the sources"""
    command: CommandSpec | None = None
    """the program that is run instead of asking `base_url`"""
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

    @property
    def is_command(self) -> bool:
        """A program on this machine stands in for an API; there is no base URL then."""
        return self.command is not None

    @property
    def command_template(self) -> tuple[str, ...]:
        """The words of its program; none for an API."""
        return () if self.command is None else self.command.template

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """The variables of its program, by name."""
        return () if self.command is None else tuple(sorted(self.command.env.items()))


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
    tags: tuple[str, ...] = ()
    """free words, for routers that choose by them"""
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
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """A routing rule as the operator wrote it; `Catalog.rule_book` holds it compiled."""

    name: str
    """`file-1` is the file's first one; those of the API are named by their id"""
    condition: str
    model: str | None = None
    provider: str | None = None
    strategy: Strategy | None = None
    share: Fraction | None = None
    on_unusable: OnUnusable = OnUnusable.FALL_THROUGH
    reason: str | None = None
    rank: int
    """rules are asked in the order of their ranks"""
    enabled: bool = True
    managed_by: ManagedBy = ManagedBy.FILE
    version: int = 1

    def compile(self) -> Rule:
        """
        The rule as it is asked.

        Raises:
            ValueError: its condition is none, or it changes nothing.
        """
        return Rule(
            condition=compile_kept(self.condition),
            model=self.model,
            provider=self.provider,
            strategy=self.strategy,
            share=self.share,
            on_unusable=self.on_unusable,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a workflow, and the model that takes it."""

    name: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """Named stages in their order; a call of one is asked for as `workflow:NAME/STAGE`."""

    name: str
    stages: tuple[Stage, ...]
    enabled: bool = True
    managed_by: ManagedBy = ManagedBy.FILE
    version: int = 1

    def find_stage(self, name: str) -> Stage | None:
        """The stage of that name; `None`: there is none."""
        return next((stage for stage in self.stages if stage.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """One snapshot of everything the operator wants, and the look-ups a call needs."""

    epoch: int = 0
    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    callers: Mapping[str, Caller] = field(default_factory=dict)
    rules: tuple[RoutingRule, ...] = ()
    """in the order in which they are asked, those included that are disabled"""
    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    default_model: str | None = None
    """this and the next two come from the file of the daemon that made the snapshot, not from rows"""
    timezone: str = "UTC"
    """in which rules read the hour and the weekday: an IANA name"""
    routers: tuple[str, ...] = ()
    """`package.module:object` each, in their order"""
    capabilities: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    """every word that some model is described with"""
    rule_book: RuleBook = field(default_factory=RuleBook, init=False, repr=False, compare=False)
    """the enabled rules, compiled"""
    _by_alias: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _limits_by_subject: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_alias = {alias: model.name for model in self.models.values() for alias in model.aliases}
        by_subject: dict[str, tuple[Limit, ...]] = {}
        for limit in self.limits:
            by_subject[limit.subject] = (*by_subject.get(limit.subject, ()), limit)
        book = RuleBook(rules=tuple(rule.compile() for rule in self.rules if rule.enabled))
        words = frozenset(word for model in self.models.values() for word in model.capabilities or ())
        object.__setattr__(self, "capabilities", words)
        object.__setattr__(self, "rule_book", book)
        object.__setattr__(self, "_by_alias", by_alias)
        object.__setattr__(self, "_limits_by_subject", by_subject)

    def with_settings_of(self, other: "Catalog") -> "Catalog":
        """This snapshot with what comes from a daemon's own file: default model, zone and routers of *other*."""
        return replace(self, default_model=other.default_model, timezone=other.timezone, routers=other.routers)

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
