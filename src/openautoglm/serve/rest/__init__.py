"""The service over HTTP: OpenAI's routes, and ours for probes and figures."""
