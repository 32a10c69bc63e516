#!lua flags=no-writes,allow-oom
-- Dead letters, oldest first, from a place on.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, or '' for all, 2 died at and 3 identifier: the place to go on after, 4 at most how many, 5 1 to have
--      each one's last attempt
-- Returns {the letters, died at, identifier}: the other two are the last place looked at, false when nothing is
-- beyond it
-- include: letter
local index = ARGV[1] == '' and key('dead') or key('dead', ARGV[1])
local after_died, after_id, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local found, looked, offset, PAGE, SCAN = {}, 0, 0, 256, 2000
local at_died, at_id = false, false
while true do
  local page = redis.call('ZRANGEBYSCORE', index, after_died, '+inf', 'WITHSCORES', 'LIMIT', offset, PAGE)
  offset = offset + PAGE
  for at = 1, #page, 2 do
    local id, died = page[at], page[at + 1]
    if after_id == '' or tonumber(died) > tonumber(after_died) or id > after_id then
      if #found >= limit or looked >= SCAN then return {found, at_died, at_id} end
      looked, at_died, at_id = looked + 1, died, id
      -- What went with its time is in the index for a while longer.
      local dead = letter(id, ARGV[5] == '1')
      if dead then found[#found + 1] = dead end
    end
  end
  if #page < 2 * PAGE then return {found, false, false} end
end
