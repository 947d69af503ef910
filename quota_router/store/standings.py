"""
How providers and limits stand, in the words of rules.

Law: only what rules ask for is looked at, all of it at one moment.
Never: changes anything.
"""

from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction

from quota_router.core.catalog import Provider
from quota_router.core.conditions import ProviderStatus
from quota_router.core.headroom import binding
from quota_router.core.limits import Kind, Limit
from quota_router.core.readings import PPM
from quota_router.core.ways import Standing
from quota_router.store.state import State
from quota_router.store.survey import Status, Survey
from quota_router.store.tenure import Job

STATUS_IN_RULES: Mapping[Status, ProviderStatus] = {
    Status.DISABLED: ProviderStatus.DISABLED,
    Status.PAUSED: ProviderStatus.DISABLED,
    Status.NO_CREDENTIAL: ProviderStatus.DISABLED,
    Status.AUTH_FAILED: ProviderStatus.DOWN,
    Status.DOWN: ProviderStatus.DOWN,
    Status.EXHAUSTED: ProviderStatus.LIMITED,
    Status.LIMITED: ProviderStatus.LIMITED,
    Status.OK: ProviderStatus.OK,
}


class Stand(Job[Standing], kw_only=True):
    """Looks at what rules ask for."""

    statuses_of: tuple[Provider, ...]
    headroom_of: tuple[Provider, ...]
    limits: tuple[Limit, ...]
    """whose used share is asked"""
    keyed: frozenset[str]
    """the references that lead to a credential"""
    stale_after_s: float

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everything whose limits speak of one of them."""
        of_providers = (subject for provider in (*self.statuses_of, *self.headroom_of) for subject in Survey.subjects_of(provider))
        return tuple(dict.fromkeys((*of_providers, *(limit.subject for limit in self.limits))))

    @property
    def accounts(self) -> tuple[str, ...]:
        """Those whose windows are asked for."""
        return tuple({provider.account for provider in (*self.statuses_of, *self.headroom_of)})

    def run(self, state: State, now: datetime) -> Standing:
        """Look."""
        survey = Survey(state=state, now=now, has_credential=self.keyed.__contains__, stale_after_s=self.stale_after_s)
        return Standing(
            provider_status={provider.name: STATUS_IN_RULES[survey.status_of(provider)] for provider in self.statuses_of},
            headroom={provider.name: self._headroom(provider, state, now) for provider in self.headroom_of},
            budget_used={limit.name: used_share(limit, state, now) for limit in self.limits},
        )

    def _headroom(self, provider: Provider, state: State, now: datetime) -> Fraction | None:
        """The share that is left where the least is: of live windows and of quotas we count; `None`: nothing is known."""
        live = binding(state.headrooms(provider.account, None, now, self.stale_after_s), "")
        used = [Fraction(live.share_used_ppm, PPM)] if live is not None and live.share_used_ppm is not None else []
        for limit in state.catalog.limits_of((f"provider:{provider.name}", f"account:{provider.account}")):
            share = used_share(limit, state, now) if limit.kind is Kind.QUOTA else None
            used += [share] if share is not None else []
        return max(Fraction(0), 1 - max(used)) if used else None


def used_share(limit: Limit, state: State, now: datetime) -> Fraction | None:
    """The part of *limit* that is posted or held; above 1 after an overrun; `None`: it allows nothing at all."""
    gauge = state.gauge(limit, now)
    return Fraction(gauge.posted + gauge.held, limit.limit) if limit.limit > 0 else None
