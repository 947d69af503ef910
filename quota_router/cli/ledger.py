"""
The ledger itself: is it whole, what stands in it, a copy of it, and what an admin corrects.

Law: who only reads, reads beside a running daemon and stops nobody; who writes goes through the daemon, or takes the ledger's lock.
Never: shows part of a ledger as the whole of it.
"""

import typer

from quota_router.cli import ledger_changes, ledger_copies, ledger_verify

app = typer.Typer(help="The ledger: verify, rebuild, export, adjust, backup.", no_args_is_help=True, rich_markup_mode=None)

for command in (
    ledger_verify.verify,
    ledger_changes.rebuild,
    ledger_copies.export,
    ledger_changes.adjust,
    ledger_copies.backup,
):
    app.command()(command)
