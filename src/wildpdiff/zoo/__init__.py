"""The zoo: adapters saved while many tasks are fine-tuned."""
