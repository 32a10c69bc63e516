#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 delivery, 2 1 to have the body too
-- Returns {its fields, origin of its endpoint, body or '', the endpoint that this one mirrors or nil}, or nil when
-- unknown
-- include: packed
local hash = all_of(ARGV[1])
if #hash == 0 then return nil end
local ep = fields_of(ARGV[1], {'ep'})[1]
local body = ARGV[2] == '1' and redis.call('GET', key('d', ARGV[1], 'body')) or ''
local e = redis.call('HMGET', key('ep', ep), 'origin', 'mirrorOf')
return {hash, e[1] or '', body, e[2]}
