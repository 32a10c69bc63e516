#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 at most how many
-- Returns {endpoint, its hash, inflight, waiting} for each of the tenant's endpoints here
-- include: describe
local found = {}
for _, id in ipairs(redis.call('SRANDMEMBER', key('eps', ARGV[1]), ARGV[2])) do
  local endpoint = describe(id)
  if endpoint then found[#found + 1] = endpoint end
end
return found
