"""Interpolation between the adapters of two tasks."""
