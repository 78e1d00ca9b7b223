"""The Anthropic protocol, and the provider that speaks it."""
