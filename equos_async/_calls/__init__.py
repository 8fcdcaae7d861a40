"""Calls: from a caller's await to what became of it."""
