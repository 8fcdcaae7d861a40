"""HTTP through aiohttp: take a request, return a reply or a failure."""
