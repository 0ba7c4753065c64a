"""Does any input get more than a documented answer, for any client or stranger?

Each target feeds one kind of mutated input. Expected are an answer or a refusal with status 4xx in
this package's own words, no record above WARNING, nothing left behind, and no missed frame in a
concurrent call. The tests here are the short form, on virtual time; ``tests/server/test_fuzz.py``
has the targets that need sockets, and ``nox -s fuzz`` runs all of them for longer, guided by
coverage.
"""
