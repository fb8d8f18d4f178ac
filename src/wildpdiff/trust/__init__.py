"""Trust in a generated adapter: a calibrated prediction of its gain, without labels of its task."""
