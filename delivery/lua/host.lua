-- include: base
-- Fragment: what the endpoints of a host share. All of them, whichever tenant's, are in one partition, but for mirrors.
--
-- Keys of a host `h`:
--   host:<h>          hash: how many attempts are under way, by endpoint, of those that have any; `limit`, while
--                     endpoints wait for a slot of the host; `lent:<e>` of an endpoint that has mirrors and
--                     `borrowed:<m>` of a mirror: in how many other partitions there may be mirrors of it
--   host:<h>:blocked  zset of endpoints that wait so, by turn
local HOST_AGAIN = 30 * 1000000

local function host_of(origin)
  return (string.gsub(string.match(origin, '//(.+)$') or '', ':%d+$', ''))
end

-- {limit, total, counts, lent, borrowed}: the limit only while endpoints wait.
local function read_host(host)
  local flat = redis.call('HGETALL', key('host', host))
  local load = {total = 0, counts = {}}
  for at = 1, #flat, 2 do
    local count = tonumber(flat[at + 1])
    local mirrors = string.match(flat[at], '^(%l+):')
    if flat[at] == 'limit' then
      load.limit = count
    elseif mirrors then
      load[mirrors] = count
    else
      load.counts[flat[at]] = count
      load.total = load.total + count
    end
  end
  return load
end

-- Has the host's hash say that the endpoint has `busy` attempts under way; returns how the host stands.
local function note_busy(host, ep, busy)
  local load = read_host(host)
  local known = load.counts[ep] or 0
  if busy == known then return load end
  if busy == 0 then
    redis.call('HDEL', key('host', host), ep)
  else
    redis.call('HSET', key('host', host), ep, busy)
  end
  load.counts[ep], load.total = busy, load.total + busy - known
  return load
end

-- How many of a host's slots are this partition's: of an eighth each partition with mirrors has an equal part, at least
-- one slot; the rest is where the host's endpoints are.
local function slots_here(limit, load)
  local others = load.borrowed or load.lent
  if not others then return limit end
  local each = math.max(1, math.floor(limit / 8 / others))
  return load.borrowed and each or math.max(1, limit - each * others)
end

local function block(host, ep, limit, score)
  redis.call('HSET', key('host', host), 'limit', limit)
  redis.call('ZADD', key('host', host, 'blocked'), 'NX', score, ep)
end
