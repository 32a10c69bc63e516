#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 endpoint
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
return describe(ARGV[1], GONE_MOST)
