from tests.kit.backends import anyio_backend as anyio_backend
