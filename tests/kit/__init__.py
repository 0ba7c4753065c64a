"""Helpers for the tests: waiting, handlers, streams and calls, clients, and measurements."""
