"""
The faults of a provider and of a caller in mid-call that each have a test of their own.

A test names the one it is about in the name of its function (`test_f07_…`) or at the head of a parameter's id (`F7 …`);
`test_faults.py` finds those without any, and those that nobody knows.
"""

FAULTS = {
    "F1": "a name that is not known, or whose look-up takes for ever",
    "F2": "a name that leads to a forbidden address",
    "F3": "a refused connection",
    "F4": "a connection that takes too long",
    "F5": "a certificate or handshake that is not good",
    "F6": "hung up before the head of the answer",
    "F7": "hung up in the middle of a body",
    "F8": "a body that ends early without an error of HTTP",
    "F9": "a 200 that is no JSON",
    "F10": "an error object inside a 200",
    "F11": "a 200 that says nothing and used nothing",
    "F12": "a stream cut after its first words",
    "F13": "a stream cut before its first word",
    "F14": "an error inside a stream",
    "F15": "a stream with broken remains after its end",
    "F16": "a stream that never ends",
    "F17": "an event that never ends",
    "F18": "an answer that stops coming, or drips",
    "F19": "a 429 that says when to come back",
    "F20": "a 429 that does not",
    "F21": "a retry-after that makes no sense",
    "F22": "one 5xx after the other",
    "F23": "an overloaded vendor",
    "F24": "a refused key",
    "F25": "a request that the caller has to mend",
    "F26": "an empty purse",
    "F27": "a quota endpoint that is down",
    "F28": "a quota endpoint that lies",
    "F29": "clocks that differ, or step",
    "F35": "a caller who leaves before the first byte",
    "F36": "a caller who leaves in mid-stream",
}
