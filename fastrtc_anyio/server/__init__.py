"""ASGI: the endpoints, the page, and a server to run them. Needs the ``server`` extra."""
