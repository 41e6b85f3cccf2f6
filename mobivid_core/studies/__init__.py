"""Comparisons that take hours, and their records."""
