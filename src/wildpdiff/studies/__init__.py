"""Studies that fit many generators to parts of one zoo: how many tasks it takes, and whole groups held out."""
