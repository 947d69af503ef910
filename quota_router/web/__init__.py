"""
The only incoming HTTP.

Law: every route declares who may call it and in which dialect its errors are told; nothing is served without both.
"""
