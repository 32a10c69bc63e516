#!lua flags=allow-oom
-- Puts values that were sealed anew in the place of the old ones.
-- KEYS 1 partition prefix
-- ARGV for each value: the name of its hash under the prefix, field, the value that was read, the same sealed anew
-- Demands that nobody changed it since it was read. Replaced by this very one is success.
-- Returns for each: 1 done, 0 changed or gone
-- include: base
local done = {}
for at = 1, #ARGV, 4 do
  local hash, field = key(ARGV[at]), ARGV[at + 1]
  local kept = redis.call('HGET', hash, field)
  if kept == ARGV[at + 2] then redis.call('HSET', hash, field, ARGV[at + 3]) end
  done[#done + 1] = (kept == ARGV[at + 2] or kept == ARGV[at + 3]) and 1 or 0
end
return done
