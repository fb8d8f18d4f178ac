"""Conditions: description to embedding."""
