"""Processes: a parent, the workers that serve, what they tell each other, and what the service manager is told."""
