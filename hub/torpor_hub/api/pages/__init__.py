"""The platform's own pages: rendered here, refreshed by htmx when the stream of changes says so."""
