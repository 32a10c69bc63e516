#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 delivery, 2 1 to have the body too
-- Returns {its hash, origin of its endpoint, body or ''}, or nil when unknown
-- include: base
local hash = redis.call('HGETALL', key('d', ARGV[1]))
if #hash == 0 then return nil end
local ep = redis.call('HGET', key('d', ARGV[1]), 'ep')
local body = ARGV[2] == '1' and redis.call('GET', key('d', ARGV[1], 'body')) or ''
return {hash, redis.call('HGET', key('ep', ep), 'origin') or '', body}
