"""Backbones: the frozen pretrained model, its preprocessing and where adapters attach."""
