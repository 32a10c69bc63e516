#!lua flags=allow-oom
-- Takes over URLs of an endpoint that answered 410 to one of its mirrors.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, then for each URL: hash, entry; see `gone`
-- Demands of each that no operator has said since which URLs are disabled.
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
local id = ARGV[1]
if redis.call('EXISTS', key('ep', id)) == 0 then return nil end
local urls_at = tonumber(redis.call('HGET', key('ep', id), 'urlsAt')) or 0
for at = 2, #ARGV, 2 do
  if since_of(ARGV[at + 1]) > urls_at then disable_gone(id, ARGV[at], ARGV[at + 1]) end
end
return describe(id, GONE_MOST)
