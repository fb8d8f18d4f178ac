"""The codec: adapter to normalised vector and back."""
