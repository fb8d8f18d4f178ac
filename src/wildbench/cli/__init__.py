"""The command ``wildbench``."""
