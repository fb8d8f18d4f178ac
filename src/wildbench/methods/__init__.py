"""Methods of the literature and controls, as sources of adapters."""
