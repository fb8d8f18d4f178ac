"""Formats that predictions and labelled pictures are written in."""
