"""The load generator: sets up calls, sends prepared packets, and analyses what came back."""
