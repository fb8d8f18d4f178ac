"""wildpdiff: generate the adapters of new tasks from what is known of them without labels."""
