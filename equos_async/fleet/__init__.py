"""Fleets: many sessions under one limit."""
