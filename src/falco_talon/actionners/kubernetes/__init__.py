"""Actionners that work on a Kubernetes cluster."""
