"""What a process of a round does. Each function takes a specification and returns rows."""
