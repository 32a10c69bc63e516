#!lua flags=no-writes,allow-oom
-- The jobs that a replay was asked for by name, from one on, whatever state they are in.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 job to go on after or '', 3 at most how many
-- Returns {identifier, the job or false} for each; fewer than asked for at the end
-- include: failed_job
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', key('rp', ARGV[1], 'ids'), from, '+', 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = {id, failed_job(id)}
end
return found
