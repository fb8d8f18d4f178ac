"""Whole studies, resumed where they were left."""
