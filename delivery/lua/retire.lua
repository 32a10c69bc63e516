#!lua flags=allow-oom
-- Takes down from their shelves what is too old or too much, the oldest first, and the bodies of delivered ones that
-- can be sent again no longer.
-- KEYS 1 partition prefix
-- ARGV 1 at most how many, 2 µs for which the end of one that left early is remembered, 3 µs that a delivered one
--      keeps its body, then for `dead` and for `delivered`: µs that one is kept, how many of a tenant, how many bytes
-- Demands nothing. One that a person asked to be sent again is left alone until that is over.
-- Returns {1 if there is more to do at once, {kind, cause, how many, ...} taken down,
--   {kind, tenant, bound, how much there is, how much there may be} for each bound of which 80 % is used}
-- include: notice
-- include: shelf
-- include: dead
local budget, ends_for, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local BOUNDS = {
  dead = {age = tonumber(ARGV[4]), count = tonumber(ARGV[5]), bytes = tonumber(ARGV[6])},
  delivered = {age = tonumber(ARGV[7]), count = tonumber(ARGV[8]), bytes = tonumber(ARGV[9])},
}
local PAGE, NEAR = 64, 0.8
local LOOK_AGAIN = 3600 * 1000000
local dropped, near, worked = {}, {}, 0

-- Takes one down; false when it has to stay, at the end of the shelf.
local function take_down(kind, shelf, member, score)
  local id, record, body = bytes_of(shelf, member, score)
  local d = redis.call('HMGET', key('d', id), 'manual', 'createdAt', 'state', 'endedAt')
  if d[1] then
    redis.call('ZADD', key('shelf', shelf), turn(), member)
    return false
  end
  if d[2] and ends_for > 0 then note_end(id, d[3], d[2], d[4], ends_for) end
  redis.call('UNLINK', key('d', id), key('d', id, 'body'))
  redis.call('ZREM', key('shelf', shelf), member)
  if kind == 'dead' then unlist_dead(id, string.match(shelf, '^dead:(.*)$')) end
  return redis.call('HINCRBY', key('shelf:bytes'), shelf, -record - body)
end

local function cause_of(bound, since, number, bytes)
  if since <= now - bound.age then return 'age' end
  if number > bound.count then return 'count' end
  if bytes > bound.bytes then return 'bytes' end
end

local function trim(kind, shelf, bound, number, bytes)
  while budget > 0 do
    local page = redis.call('ZRANGE', key('shelf', shelf), 0, math.min(PAGE, budget) - 1, 'WITHSCORES')
    if #page == 0 then return end
    for at = 1, #page, 2 do
      local cause = cause_of(bound, tonumber(page[at + 1]), number, bytes)
      if not cause then return end
      budget = budget - 1
      local left = take_down(kind, shelf, page[at], page[at + 1])
      if left then
        number, bytes, worked = number - 1, left, worked + 1
        dropped[kind .. ' ' .. cause] = (dropped[kind .. ' ' .. cause] or 0) + 1
      end
    end
  end
end

local function strip(shelf, member)
  local id, _, body = string.match(member, '^(.+):(%d+):(%d+)$')
  if redis.call('HEXISTS', key('d', id), 'manual') == 1 then
    redis.call('ZADD', key('shelf', shelf), turn(), member)
    return
  end
  redis.call('UNLINK', key('d', id, 'body'))
  redis.call('HDEL', key('d', id), 'settled', 'asked')
  redis.call('HINCRBY', key('shelf:bytes'), shelf, -tonumber(body))
  worked = worked + 1
end

-- Bodies go in the order of the shelf: one instant says how far that has come.
local function strip_old(shelf)
  while budget > 0 do
    local bare = redis.call('HGET', key('shelf:bare'), shelf) or '0'
    local page = redis.call('ZRANGEBYSCORE', key('shelf', shelf), '(' .. bare, now - window, 'WITHSCORES',
      'LIMIT', 0, math.min(PAGE, budget))
    local last = page[#page]
    if not last then return end
    -- All of the last instant, or the rest of it would be taken for bare.
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('shelf', shelf), '(' .. bare, last)) do
      strip(shelf, member)
      budget = budget - 1
    end
    redis.call('HSET', key('shelf:bare'), shelf, last)
  end
end

local function look_near(kind, tenant, bound, number, bytes)
  for name, used in pairs({count = number, bytes = bytes}) do
    if used >= NEAR * bound[name] then
      near[#near + 1] = {kind, tenant, name, string.format('%.0f', used), string.format('%.0f', bound[name])}
    end
  end
end

-- When there may be something to do again; the bounds may be others by then.
local function next_look(kind, shelf, bound)
  local first = head_score(key('shelf', shelf))
  if not first then
    redis.call('HDEL', key('shelf:bytes'), shelf)
    redis.call('HDEL', key('shelf:bare'), shelf)
    return nil
  end
  local at = first + bound.age
  if kind == 'delivered' then
    local bare = redis.call('HGET', key('shelf:bare'), shelf) or '0'
    local dressed = redis.call('ZRANGEBYSCORE', key('shelf', shelf), '(' .. bare, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if dressed[2] then at = math.min(at, tonumber(dressed[2]) + window) end
  end
  return math.max(math.min(at, now + LOOK_AGAIN), now + 1)
end

local function look_at(shelf)
  local kind, tenant = string.match(shelf, '^(%l+):(.*)$')
  local bound, set = BOUNDS[kind], key('shelf', shelf)
  local number, bytes = redis.call('ZCARD', set), tonumber(redis.call('HGET', key('shelf:bytes'), shelf) or 0)
  look_near(kind, tenant, bound, number, bytes)
  trim(kind, shelf, bound, number, bytes)
  if kind == 'delivered' then strip_old(shelf) end
  local at = turn()
  if budget > 0 then at = next_look(kind, shelf, bound) end
  if at then
    redis.call('ZADD', key('shelf:look'), at, shelf)
  else
    redis.call('ZREM', key('shelf:look'), shelf)
  end
end

for _, shelf in ipairs(redis.call('ZRANGEBYSCORE', key('shelf:look'), '-inf', now, 'LIMIT', 0, PAGE)) do
  if budget <= 0 then break end
  look_at(shelf)
end
local counts = {}
for name, number in pairs(dropped) do
  local kind, cause = string.match(name, '^(%S+) (%S+)$')
  count('retired:' .. kind .. ':' .. cause, number)
  for _, each in ipairs({kind, cause, number}) do counts[#counts + 1] = each end
end
-- What only has to stay is no reason to look again at once.
local due = head_score(key('shelf:look'))
return {worked > 0 and due and due <= turn() and 1 or 0, counts, near}
