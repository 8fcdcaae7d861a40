"""Ledgers: records of open sessions that outlive a process."""
