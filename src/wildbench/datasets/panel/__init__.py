"""Suites of the panel: small real and simulated families of tasks on which settings are judged together."""
