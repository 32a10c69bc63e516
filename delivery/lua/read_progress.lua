#!lua flags=no-writes,allow-oom
-- How far a replay has come in this partition.
-- KEYS 1 partition prefix
-- ARGV 1 replay
-- Returns {the hash of its part, its last failures}
-- include: progress
return {
  redis.call('HGETALL', key('rp', ARGV[1], 'part')), redis.call('LRANGE', key('rp', ARGV[1], 'failures'), 0, -1),
}
