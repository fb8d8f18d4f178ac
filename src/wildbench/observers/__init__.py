"""What is measured beside accuracy while a comparison runs."""
