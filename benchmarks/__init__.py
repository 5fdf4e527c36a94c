"""Ratios against what people would use instead, measured in alternating rounds of one run."""
