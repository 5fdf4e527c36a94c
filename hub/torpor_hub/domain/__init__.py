"""Pure data and rules: the standard library only, no clock, no input or output."""
