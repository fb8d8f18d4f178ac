"""From a generated adapter and a few labels to a better adapter."""
