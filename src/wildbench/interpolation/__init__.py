"""What lies between the adapters of two tasks."""
