"""Adapters: PEFT in and out, the modules that they attach to, and one vector space for many of them."""
