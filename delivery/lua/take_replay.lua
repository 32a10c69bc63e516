#!lua flags=allow-oom
-- Gives a process the replay to go on with, until it says how that went or the lease ends.
-- KEYS 1 partition prefix
-- ARGV 1 kind, 2 holder: a token of this wish, 3 lease in µs
-- Demands nothing. After a lost reply another may be given, and the first again when its lease is over.
-- Returns {now, next (µs: when there is something to do, -1 never), replay or false, its hash}
-- include: replaying
local index = key('replaying', ARGV[1])
local taken, hash = false, false
for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 10)) do
  if redis.call('HGET', key('rp', id), 'state') == 'running' then
    redis.call('ZADD', index, now + tonumber(ARGV[3]), id)
    redis.call('HSET', key('rp', id), 'holder', ARGV[2])
    taken, hash = id, redis.call('HGETALL', key('rp', id))
    break
  end
  redis.call('ZREM', index, id)
end
return {now, head_score(index) or -1, taken, hash}
