"""Composition: settings, the Prometheus backend, the command line and the worker entry."""
