"""Does a server keep its promises for an hour of clients and handlers that fail in every way?

``python -m tests.soak`` runs it: :mod:`.__main__`.
"""
