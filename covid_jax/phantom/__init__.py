"""The synthetic dataset, written in the layout of a real one."""
