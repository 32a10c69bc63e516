#!lua flags=no-writes,allow-oom
-- A tenant's audit records, newest first, from a place on.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 tenant, 2 written at or before this instant in µs or '+inf', 3 record to go on after at that instant or '',
--      4 at most how many, 5 for how long in µs they are kept
-- Returns {{written at, record} for each, 1 if there are more}
-- include: audit
local newest, after, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local oldest = string.format('%.0f', now - tonumber(ARGV[5]))
local found, offset, PAGE = {}, 0, 200
local records = key('audit', ARGV[1])
while true do
  local page = redis.call('ZREVRANGEBYSCORE', records, newest, oldest, 'WITHSCORES', 'LIMIT', offset, PAGE)
  offset = offset + PAGE
  for at = 1, #page, 2 do
    if after == '' or page[at + 1] ~= newest or record_of(page[at]) < after then
      if #found >= limit then return {found, 1} end
      found[#found + 1] = {page[at + 1], page[at]}
    end
  end
  if #page < 2 * PAGE then return {found, 0} end
end
