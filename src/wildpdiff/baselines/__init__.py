"""Baselines: every other way to get an adapter for a description, behind the same interface."""
