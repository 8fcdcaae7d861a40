"""Decisions about retries: plain values, no loop, no clock, no chance."""
