"""The best estimate of an adapter from its description: kernel regression, and networks trained with the task loss."""
