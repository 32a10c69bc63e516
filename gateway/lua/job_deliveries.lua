#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 job
-- Returns the deliveries that it owed, that of its end first; false for one there is none of
-- include: job
return redis.call('HMGET', key('j', ARGV[1]), 'delivery', 'notice', 'beginning')
