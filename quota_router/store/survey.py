"""
The one word an operator reads beside a provider or a rung.

Law: the first that applies, in the order of `Status`, which is the order in which a call would be refused; `ok` says that nothing
known speaks against it.
Never: decides: a call asks for an amount and is judged by it, here nobody asks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from quota_router.core.catalog import Attachment, Billing, Model, Provider
from quota_router.core.headroom import Headroom
from quota_router.core.health import Cooldown, FailureKind
from quota_router.core.limits import EVERYONE, Enforcement, Gauge, Kind, Limit, Unit
from quota_router.core.restraints import Restraint, Why, caution_of, restrain
from quota_router.store.state import State


class Status(StrEnum):
    """How a provider, or a rung on it, is doing."""

    DISABLED = "disabled"
    PAUSED = "paused"
    NO_CREDENTIAL = "no_credential"
    AUTH_FAILED = "auth_failed"
    DOWN = "down"
    """it keeps failing, and not for want of quota"""
    EXHAUSTED = "exhausted"
    """nothing is left of a quota"""
    LIMITED = "limited"
    """it cools down, nothing is left of a budget, or what is left of a live window is kept back"""
    OK = "ok"


@dataclass(slots=True, kw_only=True)
class Survey:
    """Looks at one moment of the ledger. Each limit is read once, however many rungs it covers."""

    state: State
    now: datetime
    has_credential: Callable[[str], bool]
    stale_after_s: float = 900.0
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _credentials: dict[str, bool] = field(default_factory=dict)
    _rooms: dict[str, tuple[Headroom, ...]] = field(default_factory=dict)

    def holds_credential(self, provider: Provider) -> bool:
        """Whether calls to *provider* can be signed; a keyless one needs nothing."""
        if provider.is_keyless:
            return True
        ref = provider.credential_ref
        if ref not in self._credentials:
            self._credentials[ref] = self.has_credential(ref)
        return self._credentials[ref]

    def status_of(self, provider: Provider) -> Status:
        """Judge a provider by itself, whatever model is asked of it."""
        return self._judge(provider, self.subjects_of(provider), "", "")

    @staticmethod
    def subjects_of(provider: Provider) -> tuple[str, ...]:
        """Everything whose limits speak of a provider, whatever is asked of it."""
        return (EVERYONE, f"provider:{provider.name}", f"account:{provider.account}")

    def status_of_rung(self, attachment: Attachment, model: Model) -> Status:
        """Judge a provider as a rung of a model."""
        provider = self.state.catalog.providers[attachment.provider]
        if not (attachment.enabled and model.enabled):
            return Status.DISABLED
        subjects = (*self.subjects_of(provider), attachment.subject, f"model:{model.name}")
        return self._judge(provider, subjects, model.name, attachment.upstream_model)

    def rooms_of(self, account: str) -> tuple[Headroom, ...]:
        """What is left of each live window of an account."""
        if account not in self._rooms:
            self._rooms[account] = self.state.headrooms(account, None, self.now, self.stale_after_s)
        return self._rooms[account]

    def restraint_of(self, provider: Provider, upstream_model: str = "") -> Restraint | None:
        """Why live windows hold calls back; without a model by windows that count all of them. `None`: they do not."""
        return restrain(self.rooms_of(provider.account), upstream_model, caution_of(provider), self.now)

    def cooling(self, provider: Provider, model: str = "") -> Cooldown | None:
        """Of what keeps a rung, or the whole provider, from being tried, that which does so longest."""
        standing = [cooldown for cooldown in self.state.cooldowns_of(provider.name, model) if cooldown.until > self.now]
        return max(standing, key=lambda cooldown: cooldown.until, default=None)

    def _judge(  # noqa: PLR0911 -- one return per word
        self, provider: Provider, subjects: tuple[str, ...], model: str, upstream_model: str
    ) -> Status:
        if not provider.enabled:
            return Status.DISABLED
        if provider.paused:
            return Status.PAUSED
        if not self.holds_credential(provider):
            return Status.NO_CREDENTIAL
        standing = self.cooling(provider, model)
        if standing is not None and standing.cause is FailureKind.AUTH:
            return Status.AUTH_FAILED
        if standing is not None and standing.is_open:
            return Status.DOWN
        full = {limit.kind for limit in self.state.catalog.limits_of(subjects) if self._is_full(limit, provider)}
        live = self.restraint_of(provider, upstream_model)
        if Kind.QUOTA in full or (live is not None and live.why is Why.EXHAUSTED):
            return Status.EXHAUSTED
        return Status.LIMITED if full or live is not None or standing is not None else Status.OK

    def _is_full(self, limit: Limit, provider: Provider) -> bool:
        """Whether nothing is left of *limit*; a flat provider asks no money and cannot run out of it."""
        if limit.enforcement is Enforcement.ADVISORY or (limit.unit is Unit.USD and provider.billing is Billing.FLAT):
            return False
        if limit.name not in self._gauges:
            self._gauges[limit.name] = self.state.gauge(limit, self.now)
        return self._gauges[limit.name].remaining == 0
