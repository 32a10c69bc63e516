#!lua flags=allow-oom
-- Makes an endpoint in a partition that is not its host's, for replays to another URL, or makes it again like the one
-- that is.
-- KEYS 1 partition prefix
-- ARGV 1 mirror, 2 tenant, 3 origin, 4 initial limit, 5 1 to make it if there is none, 6 1 if it is paused, 7 attempts
--      a second or '', 8 the most that its limit may be or '', 9 attempts a second until it is verified or '',
--      10 the endpoint that it is like, 11 the part of its rate that is the mirror's, 12 in how many other partitions
--      there may be mirrors, 13 when that one was as it is told here, 14 when an operator last said which URLs are
--      disabled, 0 if never, 15 how many are, for each: hash, entry; see `gone`, then its sealed secrets for v1 or
--      '' to keep those it has, then for each other scheme: scheme, sealed secrets
-- Demands that it was not told yet how that one was later: whoever tells so may be late, or say it twice. It is not
-- listed among the tenant's endpoints, and not counted.
-- Returns 1 if there is one now, else 0
-- include: register
-- include: gone
local id = ARGV[1]
local SECRETS = 16 + 2 * ARGV[15]
if redis.call('EXISTS', key('ep', id)) == 0 then
  if ARGV[5] ~= '1' then return 0 end
  register(id, ARGV[2], ARGV[3], ARGV[SECRETS], ARGV[4], '', '', '')
  redis.call('SREM', key('eps', ARGV[2]), id)
end
if (tonumber(redis.call('HGET', key('ep', id), 'likeAt')) or 0) > tonumber(ARGV[13]) then return 1 end
redis.call('HSET', key('ep', id), 'mirrorOf', ARGV[10], 'part', ARGV[11], 'likeAt', ARGV[13])
if ARGV[SECRETS] ~= '' then redis.call('HSET', key('ep', id), 'secret:v1', ARGV[SECRETS]) end
redis.call('HSET', key('host', host_of(ARGV[3])), 'borrowed:' .. id, ARGV[12])
for at = SECRETS + 1, #ARGV, 2 do redis.call('HSET', key('ep', id), 'secret:' .. ARGV[at], ARGV[at + 1]) end

local function set(field, value)
  local changed = (redis.call('HGET', key('ep', id), field) or '') ~= value
  if value == '' then
    redis.call('HDEL', key('ep', id), field)
  else
    redis.call('HSET', key('ep', id), field, value)
  end
  return changed
end

local is_paced_anew = set('rate', ARGV[7])
is_paced_anew = set('unverified', ARGV[9]) or is_paced_anew
-- What was used up at another rate says nothing of this one.
if is_paced_anew then redis.call('HDEL', key('ep', id), 'tat') end
set('maxLimit', ARGV[8])
keep_within(id)
pause(id, ARGV[6] == '1')
local entries = {}
for at = 16, SECRETS - 2, 2 do entries[ARGV[at]] = ARGV[at + 1] end
follow_urls(id, tonumber(ARGV[14]), entries)
rescore(id)
announce()
return 1
