"""
What a router is asked.

Law: nothing that a router does to a request reaches an upstream; what it says does.
Never: keeps a body; it is decoded when a router first looks at it, and again for whoever changes it: most routers never do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias

from quota_router.core.billing import BYTES_PER_TOKEN
from quota_router.core.calls import Call, Operation
from quota_router.core.catalog import Family

Transform: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Takes the members of a body, which are its own to change, and returns the changed ones."""

_CHANGEABLE = frozenset(
    {
        "model",
        "labels",
        "priority",
        "task_id",
        "retry_count",
        "requires",
        "session",
        "workflow",
        "stage",
        "input_tokens",
        "max_output_tokens",
    }
)

_WORDS = frozenset({"labels", "requires"})
_NUMBERS = frozenset({"priority", "retry_count", "input_tokens", "max_output_tokens"})
WORDS_MAX = 32
WORD_MAX_CHARS = 128
TEXT_MAX_CHARS = 256
NUMBER_MAX = 2**53


@dataclass(frozen=True, kw_only=True)
class RoutingRequest:
    """
    What is known of a call before it is decided where it goes. `None`: not known, or not said.

    It has no slots, so that what is read off the body late can be kept.
    """

    model: str | None = None
    """as the caller asked for it"""
    family: Family | None = None
    """the dialect that the caller speaks; `None`: he makes the call himself, in any"""
    operation: Operation = Operation.ROUTE
    input_tokens: int | None = None
    """about how many"""
    max_output_tokens: int | None = None
    stream: bool = False
    labels: tuple[str, ...] = ()
    priority: int | None = None
    task_id: str | None = None
    retry_count: int | None = None
    requires: frozenset[str] = frozenset()
    """capabilities: those that the caller names, and those that what he sent cannot do without (`vision`, `audio`, `tools`, …)"""
    session: str | None = None
    caller: str = ""
    workflow: str | None = None
    stage: str | None = None
    read: Callable[[], Mapping[str, Any]] = field(default=dict, repr=False, compare=False)
    """decodes the body anew"""
    transforms: tuple[Transform, ...] = field(default=(), repr=False)
    """what the body has gone through so far"""

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """
        What was sent, decoded and read-only; empty when the caller makes the call himself.

        What is done to the values inside reaches nobody upstream: `changed` and `transform` do.
        """
        members: Mapping[str, Any] = dict(self.read())
        for transform in self.transforms:
            members = transform(dict(members))
        return MappingProxyType(dict(members))

    def changed(self, *, transform: Transform | None = None, **options: Any) -> "RoutingRequest":  # noqa: ANN401 -- fields of ours
        """
        Go on with another model, other options, or another body; for a router that is asked first.

        Raises:
            TypeError: an option is none that a router may change.
        """
        if not _CHANGEABLE.issuperset(options):
            strange = ", ".join(sorted(options.keys() - _CHANGEABLE))
            raise TypeError(f"a router cannot change {strange}: it may change {', '.join(sorted(_CHANGEABLE))}.")
        added = () if transform is None else (transform,)
        for name, value in options.items():
            options[name] = _checked(name, value)
        return replace(self, transforms=(*self.transforms, *added), **options)


def _checked(name: str, value: Any) -> Any:  # noqa: ANN401 -- whatever a router gave
    """
    A changed option in its own type: lists of words may be any collection of them.

    Raises:
        TypeError: it is of no use here.
    """
    if name in _WORDS:
        if isinstance(value, str) or not all(isinstance(word, str) and 0 < len(word) <= WORD_MAX_CHARS for word in value):
            raise TypeError(f"{name} are words in a list, each of at most {WORD_MAX_CHARS} characters.")
        words = tuple(dict.fromkeys(value))
        if len(words) > WORDS_MAX:
            raise TypeError(f"{name} are at most {WORDS_MAX} words.")
        return frozenset(words) if name == "requires" else words
    if value is None:
        return value
    if name in _NUMBERS:
        if type(value) is not int or abs(value) > NUMBER_MAX:
            raise TypeError(f"{name} is a whole number.")
    elif not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX_CHARS:
        raise TypeError(f"{name} is a text of at most {TEXT_MAX_CHARS} characters.")
    return value


def request_of(call: Call, read: Callable[[], Mapping[str, Any]], requires: frozenset[str]) -> RoutingRequest:
    """The request that a call is. *read* decodes its body anew; *requires*: what it cannot do without."""
    facts, is_relayed = call.facts, call.operation is not Operation.ROUTE
    bound = facts.input_tokens
    return RoutingRequest(
        model=call.model,
        family=call.family if is_relayed else None,
        operation=call.operation,
        # Of a body the bound is its bytes.
        input_tokens=-(-bound // BYTES_PER_TOKEN) if is_relayed and bound is not None else bound,
        max_output_tokens=facts.max_output_tokens,
        stream=facts.stream,
        labels=call.labels,
        priority=call.priority,
        task_id=call.task_id,
        retry_count=call.retry_count,
        requires=requires,
        session=call.session,
        caller=call.caller.name,
        workflow=call.workflow,
        stage=call.stage,
        read=read,
    )
