"""A real Kubernetes for the tests: built from public packages, run without a container engine."""
