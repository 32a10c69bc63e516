#!lua flags=allow-oom
-- Takes over URLs of an endpoint that answered 410 to one of its mirrors.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, then for each URL: hash, entry; see `gone`
-- Demands of each that no operator has said since which URLs are disabled, and that the endpoint is not a later one.
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
local id = ARGV[1]
local e = redis.call('HMGET', key('ep', id), 'createdAt', 'urlsAt')
if not e[1] then return nil end
local known_at = math.max(tonumber(e[1]), tonumber(e[2]) or 0)
for at = 2, #ARGV, 2 do
  if since_of(ARGV[at + 1]) > known_at then disable_gone(id, ARGV[at], ARGV[at + 1]) end
end
return describe(id, GONE_MOST)
