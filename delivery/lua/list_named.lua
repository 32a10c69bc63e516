#!lua flags=no-writes,allow-oom
-- The deliveries that a replay was asked for by name, from one on, whatever state they are in.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 identifier to go on after or '', 3 at most how many
-- Returns {identifier, its letter or false} for each; fewer than asked for at the end
-- include: letter
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', key('rp', ARGV[1], 'ids'), from, '+', 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = {id, letter(id)}
end
return found
