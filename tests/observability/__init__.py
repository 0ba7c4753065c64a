"""What observers, metrics and spans report, on virtual time."""
