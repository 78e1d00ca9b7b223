"""Traces over OTLP, and the names that OpenTelemetry's semantic conventions give things."""
