"""The Gemini protocol, and the provider that speaks it."""
