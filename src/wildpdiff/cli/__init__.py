"""The command line: one verb a file, the public API only."""
