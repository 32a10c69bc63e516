#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 at most how many
-- Returns the oldest notices to the operator, each as JSON
-- include: base
return redis.call('LRANGE', key('operator:notices'), 0, ARGV[1] - 1)
