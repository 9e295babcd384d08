"""Metrics of a segmentation: arrays and counts in, numbers out."""
