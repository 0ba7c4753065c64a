"""Foundations that every other package may import: event loops, threads, options.

* :mod:`.host`: reach the session's event loop from any thread
* :mod:`.threads`: run synchronous user code on daemon threads
* :mod:`.gate`: a flag that tasks wait for and any thread sets
* :mod:`.stacks`: stacks of tasks that wait
* :mod:`.user_code`: tell the kinds of functions of the application apart
* :mod:`.groups`: unwrap exception groups of one error
* :mod:`.options`: check options, and describe values in error messages
* :mod:`.attributes`: attributes that an object keeps on one of its parts
* :mod:`.records`: limit and clean the package's log records
* :mod:`.required`: check the private names of libraries at import
"""
