"""The research apparatus of wildpdiff: further methods, controls, observers, studies and their pages."""
