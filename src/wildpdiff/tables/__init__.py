"""Tables of text as people write them: their cells, numbers and columns, and remarks on what was read otherwise."""
