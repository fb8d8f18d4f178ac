"""The distribution of adapters given a description: what is not known of a task once it is described."""
