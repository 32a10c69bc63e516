"""What request bodies may hold, a module a noun."""
