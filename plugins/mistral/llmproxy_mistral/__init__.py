"""The Mistral protocol, and the provider that speaks it."""
