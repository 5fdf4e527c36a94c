"""The loops: they watch facts and wishes, ask ``domain`` what is next, act, and record through ``services``."""
