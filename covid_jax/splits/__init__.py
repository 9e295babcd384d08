"""Splits of slices into training, validation and test parts."""
