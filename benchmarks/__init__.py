"""Benchmarks: ``python -m benchmarks --help`` lists the suites; docs/performance.md explains them.

The package is not installed. Servers run in processes pinned to one core, and the load generator in
a process pinned to another.
"""
