"""Runs and weights on disk."""
