#!lua flags=allow-oom
-- Notes that the files of expired jobs are deleted.
-- KEYS 1 partition prefix
-- ARGV jobs
-- Demands nothing.
-- Returns how many were noted
-- include: delivery/base
return redis.call('SREM', key('doomed'), unpack(ARGV))
