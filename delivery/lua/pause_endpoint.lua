#!lua flags=allow-oom
-- Holds an endpoint's deliveries back, or lets them go again.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 1 to pause, 0 to resume
-- Demands nothing: one that is paused, or not, stays so since when it is.
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
local id, pause = ARGV[1], ARGV[2] == '1'
local e = redis.call('HMGET', key('ep', id), 'origin', 'paused', 'pausedFor')
if not e[1] then return nil end
if pause and not e[2] then
  redis.call('HSET', key('ep', id), 'paused', now)
elseif not pause and e[2] then
  redis.call('HSET', key('ep', id), 'pausedFor', paused_total(e[2], e[3]))
  redis.call('HDEL', key('ep', id), 'paused')
end
tell_mirrors(id)
rescore(id)
announce()
return describe(id, GONE_MOST)
