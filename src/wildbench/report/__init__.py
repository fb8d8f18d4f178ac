"""Figures, tables and pages of the sections that this package adds."""
