"""The REST api and the pages: parse, call a service, reply."""
