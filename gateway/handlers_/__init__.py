"""The built-in job types, one module each, found by name like any team's own."""
