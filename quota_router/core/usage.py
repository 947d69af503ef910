"""
How many tokens one answer used, in buckets that do not overlap.

Law: each token stands in exactly one bucket; an explicit 0 is 0, and a usage nobody reported is `None`, never zeros.
Never: prices anything.
"""

from enum import StrEnum
from typing import Self

from msgspec import Struct


class Quality(StrEnum):
    """How much a usage can be trusted."""

    REPORTED = "reported"
    """the upstream said so"""
    ESTIMATED = "estimated"
    """counted by us from the bytes that passed"""
    ASSUMED = "assumed"
    """nobody said: the estimate stands in until the truth comes"""


class Usage(Struct, frozen=True, kw_only=True):
    """
    Token counts of one answer. `reasoning` only where the vendor counts it beside `output`, else it is inside `output`.

    In a ledger entry that corrects an earlier one the counts are differences and may be negative.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    quality: Quality = Quality.REPORTED

    @property
    def input_tokens(self) -> int:
        """Everything that was read: uncached, cached and written to the cache."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def output_tokens(self) -> int:
        """Everything that was written, reasoning included."""
        return self.output + self.reasoning

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def minus(self, other: Self) -> Self:
        """The difference, bucket by bucket, with our own quality: what a late truth adds to what was assumed."""
        counts = {name: getattr(self, name) - getattr(other, name) for name in BUCKETS}
        return type(self)(**counts, quality=self.quality)


BUCKETS: tuple[str, ...] = tuple(name for name in Usage.__struct_fields__ if name != "quality")
"""The names of the token buckets, in the order in which entries and prices list them."""
