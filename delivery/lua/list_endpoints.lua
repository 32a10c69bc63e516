#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 at most how many, 3 at most how many disabled URLs of all of them
-- Returns the tenant's endpoints here, each as `describe` has it
-- include: describe
local found, left = {}, tonumber(ARGV[3])
for _, id in ipairs(redis.call('SRANDMEMBER', key('eps', ARGV[1]), ARGV[2])) do
  local endpoint = describe(id, math.min(left, GONE_MOST))
  if endpoint then
    found[#found + 1] = endpoint
    left = left - #endpoint[6] / 2
  end
end
return found
