"""
One endpoint in front of all your LLM subscriptions and keys.

Start reading at `router.py`: the way of a call, top to bottom.
"""

__version__ = "0.1.0"
