"""
What to send so that a call has a bound: a strict limit lets in nothing else.

Law: it names the fields of the path that was called, and of the model as the operator writes it; sent so, the call has a bound.
Never: judges whether one is needed.
"""

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Model
from quota_router.core.estimates import bound_of

OUTPUT_CAPS = {
    Operation.CHAT: "`max_completion_tokens` (or `max_tokens`)",
    Operation.COMPLETIONS: "`max_tokens`",
    Operation.RESPONSES: "`max_output_tokens`",
    Operation.MESSAGES: "`max_tokens`",
    Operation.ROUTE: "`max_output_tokens`",
}
"""The fields that cap an answer. Embeddings and counts write nothing."""


def say_what_bounds(facts: CallFacts, operation: Operation, model: Model) -> str:
    """Say what is missing, in whole sentences; nothing is, where the text is empty."""
    if facts.is_open_ended and operation is not Operation.COUNT_TOKENS:
        return f"Leave out {' and '.join(facts.open_ended_by)}: nobody knows what it may cost."
    bound = bound_of(facts, operation, model)
    told = []
    if bound.output_tokens is None:
        told.append(f"Send {OUTPUT_CAPS[operation]}, or set `max_output_tokens` on the model {model.name!r}.")
    if bound.input_tokens is None:
        is_unseen = operation is Operation.ROUTE
        how = "Send `input_tokens`" if is_unseen else "Send the content itself instead of a reference to it"
        told.append(f"{how}, or set `context_tokens` on the model {model.name!r}.")
    return " ".join(told)
