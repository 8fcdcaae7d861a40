"""Where open sessions are written down, beyond the life of one process."""
