"""HTTP through aiohttp: a request goes in, a reply or a failure comes out."""
