"""The HTTP API: a module for each kind of thing that has an address."""
