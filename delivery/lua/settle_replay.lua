#!lua flags=allow-oom
-- How a step of a replay went: it goes on later, or is over.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 holder, 3 state (running, completed, stopped), 4 reason or '', 5 µs to wait at least, 6 µs that the
--      step has used of its rate, 7 attempted and 8 failed: what its brake begins to count from, 9 life of an ended one
--      in µs
-- Demands `running` in the hands of this holder.
-- Returns 1 done, 0 not the holder's any more
-- include: replaying
local id, state = ARGV[1], ARGV[3]
local r = redis.call('HMGET', key('rp', id), 'state', 'holder', 'kind', 'pacedAt')
if r[1] ~= 'running' or r[2] ~= ARGV[2] then return 0 end
if state ~= 'running' then
  end_replay(id, r[3], state, ARGV[4], tonumber(ARGV[9]))
  return 1
end
redis.call('HSET', key('rp', id), 'updatedAt', now, 'baseAttempted', ARGV[7], 'baseFailed', ARGV[8])
if tonumber(ARGV[6]) > 0 then
  redis.call('HSET', key('rp', id), 'pacedAt', math.max(tonumber(r[4] or 0), now) + tonumber(ARGV[6]))
end
redis.call('HDEL', key('rp', id), 'holder')
redis.call('ZADD', key('replaying', r[3]), now + tonumber(ARGV[5]), id)
return 1
