"""The bodies the gateway answers with and calls back with, as schemas, a module a noun.

Answers are written by `documents`, `problems` and the `api` modules; here is what they promise,
and the tests hold one against the other. Clients should pass over members that they do not know:
later releases may add some.
"""
