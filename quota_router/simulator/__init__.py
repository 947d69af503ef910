"""
The scripted upstream: the other side of the wire for `demo`, tests and benchmarks.

    async with Simulator([Account(key="k", requests=2)]) as sim:
        sim.script("k", Reply(input_tokens=1000, output_tokens=7), Refusal(status=429, retry_after=30))

Law: an independent witness. It leans on nothing of ours, so that a misreading in `dialects` cannot hide in it.
"""

from quota_router.simulator.script import Account, Fault, FaultKind, Refusal, Reply, Step, step_from_json, step_to_json
from quota_router.simulator.server import Simulator
from quota_router.simulator.vendor import Seen

__all__ = [
    "Account",
    "Fault",
    "FaultKind",
    "Refusal",
    "Reply",
    "Seen",
    "Simulator",
    "Step",
    "step_from_json",
    "step_to_json",
]
