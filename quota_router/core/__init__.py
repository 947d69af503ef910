"""
Values in, answers out.

Law: nothing in this room reads a clock, waits, logs, draws a random number, or knows a database row. `now` is an argument.
"""
