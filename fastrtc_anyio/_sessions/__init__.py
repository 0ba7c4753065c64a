"""Sessions of one handler: admission, negotiation, supervision and look-up."""
