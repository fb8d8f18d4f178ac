"""Evaluation: scores, recovered gain and the table of results."""
