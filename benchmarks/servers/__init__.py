"""Servers of the benchmarks. ``python -m benchmarks.servers KIND [--tree PATH]`` runs one.

Offers arrive on stdin and answers leave on stdout, as lines of JSON, so that no web server is
measured. A server ends with its stdin. The modules import what they measure alone: they run in
separate environments.
"""
