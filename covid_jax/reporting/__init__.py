"""Figures, contact sheets and HTML reports."""
