#!lua flags=allow-oom
-- Writes, to see that writes are taken. At the memory limit they still are: what is kept must go on.
-- KEYS 1 prefix of the keys that belong to no partition
-- Demands nothing.
-- Returns 1
redis.call('SET', KEYS[1] .. 'probe', '1', 'PX', 60000)
return 1
