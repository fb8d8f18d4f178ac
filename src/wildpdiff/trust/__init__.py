"""Trust: how far a generated adapter may be relied on, told without a label of its task."""
