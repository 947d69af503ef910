"""
The simulator as a process of its own: prints `{"port": N}` when it listens, ends on SIGTERM or SIGINT.

    python -m quota_router.simulator [--host 127.0.0.1] [--port 0] [--account '{"key": "k", "requests": 5}' …]
"""

import argparse
import asyncio
import json
import signal
import sys

import msgspec

from quota_router.simulator import Account, Simulator


async def serve(host: str, port: int, accounts: list[Account]) -> None:
    """Play the upstream until a signal comes."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(accounts, host, port) as simulator:
        sys.stdout.write(json.dumps({"port": simulator.port}) + "\n")
        sys.stdout.flush()
        await ended.wait()


def _account(text: str) -> Account:
    return msgspec.json.decode(text, type=Account)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="quota_router.simulator", description="A scripted LLM upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--account", type=_account, action="append", default=[], help="JSON; may be repeated")
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.account))
