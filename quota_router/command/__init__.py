"""Command-line tools as providers: the room beside `upstream` that starts processes instead of opening connections."""

from quota_router.command.commands import PROCESSES_MAX, Commands
from quota_router.command.requests import CommandAnswer, CommandRequest

__all__ = ["PROCESSES_MAX", "CommandAnswer", "CommandRequest", "Commands"]
