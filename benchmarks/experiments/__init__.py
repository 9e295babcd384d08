"""Experiments on real data, and the tables of RESULTS.md."""
