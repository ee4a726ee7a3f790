"""Actionners that call a service over HTTP."""
