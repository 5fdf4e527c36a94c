"""The importer: claims tasks over HTTP and runs each in a child process that it can kill."""
