"""Suites that need no files of the user, and the worlds of the panel."""
