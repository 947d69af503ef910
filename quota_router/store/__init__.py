"""
The only SQL.

Law: rows never leave this room; values of `core` go in and come out. One lane writes, readers only read.
"""
