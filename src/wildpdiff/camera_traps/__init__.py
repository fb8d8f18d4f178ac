"""Labelled pictures as people have them: formats of camera-trap data, and suites of tasks made from them."""
