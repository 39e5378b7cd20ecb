"""HTML files that need no other file and no network: their stylesheet, their template and their charts."""
