"""Does any input of a client or a stranger affect other calls, or hold resources?

Real sockets, real time, and floods that need a quiet machine: ``nox -s attacks`` runs them one at
a time, apart from the other tests.
"""
