"""Metrics: what is counted of calls and of the process, and how Prometheus and people read it."""
