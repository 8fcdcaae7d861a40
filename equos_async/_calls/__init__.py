"""Calls: from a caller's await to the outcome."""
