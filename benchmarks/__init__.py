"""Repeatable measurements: python -m benchmarks.NAME [--json] -> name, value, target, met."""
