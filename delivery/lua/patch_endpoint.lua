#!lua flags=allow-oom
-- Changes what an operator may say of an endpoint.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 attempts a second, 3 the most that its limit may be; each as a number, '' to leave it, or `null`
--      for none of its own, 4 1 if the disabled URLs are given, then those that are to be: hash, row, sealed URL, ...
-- Demands nothing: said twice, it is as if said once.
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
local id = ARGV[1]
if redis.call('EXISTS', key('ep', id)) == 0 then return nil end

local function change(field, value)
  if value == 'null' then
    redis.call('HDEL', key('ep', id), field)
  elseif value ~= '' then
    redis.call('HSET', key('ep', id), field, value)
  end
end

change('rate', ARGV[2])
-- What was used up at another rate says nothing of this one.
if ARGV[2] ~= '' then redis.call('HDEL', key('ep', id), 'tat') end
change('maxLimit', ARGV[3])
keep_within(id)

if ARGV[4] == '1' then
  local entries = {}
  for at = 5, #ARGV, 3 do entries[ARGV[at]] = entry_of('operator', ARGV[at + 1], ARGV[at + 2]) end
  follow_urls(id, now, entries)
end
tell_mirrors(id)
rescore(id)
announce()
return describe(id, GONE_MOST)
