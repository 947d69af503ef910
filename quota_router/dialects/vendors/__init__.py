"""
What single vendors say in their own way, whichever family's dialect they say it in.

A vendor's own fields and headers are read wherever they cannot be mistaken; his bare numbers only when the provider's `vendor`
names him, because vendors contradict each other there: 1300 is a rate limit at Mistral and a policy at z.ai, 1002 a bad key at z.ai
and a rate limit at MiniMax.
"""
