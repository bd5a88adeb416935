"""A job as a child process: the provider starts it, the worker trains, and a folder of records connects them."""
