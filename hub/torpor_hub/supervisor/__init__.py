"""Order of start, restarts and orderly end of the platform's programs on one machine."""
