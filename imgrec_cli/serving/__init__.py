"""A bundle as a web service: `imgrec serve` (needs the extra `serve`)."""
