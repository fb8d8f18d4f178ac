"""What a description says of its adapter: kernel regression, and networks trained with the task loss."""
