"""Many sessions under one limit."""
