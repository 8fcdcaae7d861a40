"""The API contract: operations, answers, and their JSON; pure."""
