#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 delivery, 2 1 to have the body too
-- Returns {its fields, origin of its endpoint, body or ''}, or nil when unknown
-- include: packed
local hash = all_of(ARGV[1])
if #hash == 0 then return nil end
local ep = fields_of(ARGV[1], {'ep'})[1]
local body = ARGV[2] == '1' and redis.call('GET', key('d', ARGV[1], 'body')) or ''
return {hash, redis.call('HGET', key('ep', ep), 'origin') or '', body}
