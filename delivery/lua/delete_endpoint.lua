#!lua flags=allow-oom
-- Forgets an endpoint, its secrets and what was known of its health. Its dead letters and its history stay.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 since when it must not have been lent, or ''
-- Demands that no delivery to it waits or is being attempted, and that it was not lent since.
-- Returns 1 deleted, 0 unknown, -1 in use
-- include: endpoint
local id = ARGV[1]
local e = redis.call('HMGET', key('ep', id), 'tenant', 'origin', 'lentAt')
if not e[1] then return 0 end
local queues = {}
for _, queue in ipairs({'live', 'replay', 'inflight', 'suspects'}) do queues[#queues + 1] = key('ep', id, queue) end
if redis.call('EXISTS', unpack(queues)) > 0 then return -1 end
if e[3] and ARGV[2] ~= '' and tonumber(e[3]) >= tonumber(ARGV[2]) then return -1 end
-- Nothing of it waits, so it has no place: not in turn, nor in the agenda, nor for its host.
rescore(id)
redis.call('DEL', key('ep', id), key('ep', id, 'gone'))
redis.call('SREM', key('eps', e[1]), id)
redis.call('ZREM', key('breakers'), id)
redis.call('HDEL', key('host', host_of(e[2])), 'lent:' .. id, 'borrowed:' .. id)
return 1
