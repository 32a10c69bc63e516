#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 endpoint
-- Returns {endpoint, its hash, inflight, waiting}, or nil when unknown
-- include: describe
return describe(ARGV[1])
