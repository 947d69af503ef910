"""What command-line tools write: their answers, their failures, and the times they name."""

from quota_router.dialects.commands.failures import SHORT_ANSWER_CHARS, judge, statements
from quota_router.dialects.commands.output import Output, read_output
from quota_router.dialects.commands.times import read_reset

__all__ = ["SHORT_ANSWER_CHARS", "Output", "judge", "read_output", "read_reset", "statements"]
