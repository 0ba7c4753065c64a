"""Programs of the processes of a round. Each function takes a specification and returns rows."""
