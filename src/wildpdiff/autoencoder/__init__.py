"""Autoencoders: normalised adapter vectors to latents and back."""
