"""The distribution of adapters given a description."""
