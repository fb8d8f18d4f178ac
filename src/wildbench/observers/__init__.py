"""Observers: measurements besides accuracy during a comparison."""
