#!lua flags=allow-oom
-- Takes down from their shelves what is too old or too much, the oldest first, and packs those delivered ones that can
-- be sent again no longer.
-- KEYS 1 partition prefix
-- ARGV 1 at most how many, 2 µs for which the end of one that left early is remembered, 3 µs that a delivered one
--      can be sent again, then for `dead` and for `delivered`: µs that one is kept, how many of a tenant, how many bytes
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
local function take_down(kind, shelf, member)
  local id, total = read_member(member)
  local d = fields_of(id, {'manual', 'createdAt', 'state', 'endedAt'})
  if d[1] then
    redis.call('ZADD', key('shelf', shelf), turn(), member)
    return false
  end
  if d[2] and ends_for > 0 then note_end(id, d[3], d[2], d[4], ends_for) end
  redis.call('UNLINK', key('d', id), key('d', id, 'body'))
  redis.call('ZREM', key('shelf', shelf), member)
  if kind == 'dead' then unlist_dead(id, string.match(shelf, '^dead:(.*)$')) end
  return redis.call('HINCRBY', key('shelf:bytes'), shelf, -total)
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
      local left = take_down(kind, shelf, page[at])
      if left then
        number, bytes, worked = number - 1, left, worked + 1
        dropped[kind .. ' ' .. cause] = (dropped[kind .. ' ' .. cause] or 0) + 1
      end
    end
  end
end

-- What a person asked to be sent again stays whole, at the end of the shelf.
local function pack_one(shelf, member, score)
  local id, total = read_member(member)
  if redis.call('HEXISTS', key('d', id), 'manual') == 1 then
    redis.call('ZADD', key('shelf', shelf), turn(), member)
    return
  end
  local packed = pack(id)
  redis.call('ZREM', key('shelf', shelf), member)
  redis.call('HINCRBY', key('shelf:bytes'), shelf, (packed or 0) - total)
  if packed then redis.call('ZADD', key('shelf', shelf), score, string.format('%s:%d:0', id, packed)) end
  worked = worked + 1
end

-- In the order of the shelf: one instant says how far that has come.
local function pack_old(shelf)
  while budget > 0 do
    local from = redis.call('HGET', key('shelf:packed'), shelf) or '0'
    local page = redis.call('ZRANGEBYSCORE', key('shelf', shelf), '(' .. from, now - window, 'WITHSCORES',
      'LIMIT', 0, math.min(PAGE, budget))
    local last = page[#page]
    if not last then return end
    -- All of the last instant, or the rest of it would be taken for packed.
    page = redis.call('ZRANGEBYSCORE', key('shelf', shelf), '(' .. from, last, 'WITHSCORES')
    for at = 1, #page, 2 do
      pack_one(shelf, page[at], page[at + 1])
      budget = budget - 1
    end
    redis.call('HSET', key('shelf:packed'), shelf, last)
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
    redis.call('HDEL', key('shelf:packed'), shelf)
    return nil
  end
  local at = first + bound.age
  if kind == 'delivered' then
    local from = redis.call('HGET', key('shelf:packed'), shelf) or '0'
    local whole = redis.call('ZRANGEBYSCORE', key('shelf', shelf), '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if whole[2] then at = math.min(at, tonumber(whole[2]) + window) end
  end
  return math.max(math.min(at, now + LOOK_AGAIN), now + 1)
end

local function look_at(shelf)
  local kind, tenant = string.match(shelf, '^(%l+):(.*)$')
  local bound, set = BOUNDS[kind], key('shelf', shelf)
  local number, bytes = redis.call('ZCARD', set), tonumber(redis.call('HGET', key('shelf:bytes'), shelf) or 0)
  look_near(kind, tenant, bound, number, bytes)
  trim(kind, shelf, bound, number, bytes)
  if kind == 'delivered' then pack_old(shelf) end
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
