"""Slices to the network's input and back: arrays and keywords in, arrays out."""
