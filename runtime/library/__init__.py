"""The library: media files, their vectors in SQLite, indexing and search."""
