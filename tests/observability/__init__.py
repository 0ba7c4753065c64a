"""Reports of observers, metrics and spans, on virtual time."""
