"""Figures for Prometheus in vLLM's names, and traces for OpenTelemetry."""
