"""Suites that need no files of the user, and the data sets of the panel."""
