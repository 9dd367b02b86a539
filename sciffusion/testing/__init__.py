"""Conformance checks for extensions."""
