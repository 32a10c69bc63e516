"""`/openapi.json`: beside each module of the API, one that describes its operations."""
