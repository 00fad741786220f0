"""The server: HTTP routes over a library for the page and for programs, background indexing, security."""
