#!lua flags=allow-oom
-- Writes, to see that writes are taken, or that a replica follows. At the memory limit they still are: what is kept
-- must go on.
-- KEYS 1 prefix of a partition, or of the keys that belong to none
-- Demands nothing.
-- Returns 1
redis.call('SET', KEYS[1] .. 'probe', '1', 'PX', 60000)
return 1
