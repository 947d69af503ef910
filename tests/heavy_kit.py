"""
How much the heavy runs do, those of `-m slow`: all of it when somebody asks for them, a part of it in the gate.

    HEAVY_RUNS=small pytest -m slow     the gate's: two minutes, or three on a busy machine, and the same examples every time
"""

import os

IS_SMALL = os.environ.get("HEAVY_RUNS") == "small"
