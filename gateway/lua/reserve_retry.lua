#!lua flags=allow-oom
-- Settles under which identifier an ended job is run again: the first one asked for.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 identifier that the new job would have
-- Demands `failed` or `cancelled`.
-- Returns {status it is in, identifier of the new job or ''}, or nil when unknown
-- include: job
local id = ARGV[1]
local status = redis.call('HGET', key('j', id), 'status')
if not status then return nil end
if status ~= 'failed' and status ~= 'cancelled' then return {status, ''} end
if redis.call('HSETNX', key('j', id), 'retriedAs', ARGV[2]) == 1 then
  unlist_failed(id, redis.call('HGET', key('j', id), 'tenant'))
  redis.call('HINCRBY', key('j', id), 'rev', 1)
end
return {status, redis.call('HGET', key('j', id), 'retriedAs')}
