"""The command line `gateway`: processes, jobs, callbacks, keys, receivers, and what is wrong."""
