"""Latent diffusion: schedules, denoisers, samplers and their training."""
