-- include: packed
-- Fragment: what has ended stays on a shelf, one for each tenant and kind (`dead`, `delivered`), where age, count and
-- bytes are counted; `retire` takes down what is too much.
--
-- Keys of the partition:
--   shelf:<kind>:<tenant>   zset of deliveries by when they were put there; a member is `<delivery>:<bytes of its
--                           record>:<bytes of its body>`, so that the counts hold whatever became of its keys
--   shelf:bytes             hash: bytes by shelf
--   shelf:packed            hash: by shelf, the instant up to which all are packed
--   shelf:look              zset of shelves, by when to look at them
-- A delivery on a shelf names the kind and its bytes in the field `shelved`, unless it is packed: then they follow from
-- it.
local RECORD_OVERHEAD = 512
-- Beyond its time a delivery's keys stay a day, for `retire` to come first: what it takes down is counted.
local TTL_MARGIN = 86400 * 1000000

local looked = {}

local function shelve(kind, tenant, id)
  local shelf, record = kind .. ':' .. tenant, RECORD_OVERHEAD
  for _, value in ipairs(redis.call('HVALS', key('d', id))) do record = record + #value end
  local body = redis.call('STRLEN', key('d', id, 'body'))
  local bytes = record .. ':' .. body
  redis.call('HSET', key('d', id), 'shelved', kind .. ':' .. bytes)
  redis.call('ZADD', key('shelf', shelf), turn(), id .. ':' .. bytes)
  redis.call('HINCRBY', key('shelf:bytes'), shelf, record + body)
  if not looked[shelf] then
    looked[shelf] = true
    redis.call('ZADD', key('shelf:look'), 'LT', now, shelf)
  end
end

-- The delivery that a member of a shelf is, and its bytes.
local function read_member(member)
  local id, record, body = string.match(member, '^(.+):(%d+):(%d+)$')
  return id, record + body
end

-- Off its shelf, because it begins anew or goes for good.
local function unshelve(id)
  local d = fields_of(id, {'tenant', 'shelved'})
  if not d[2] then return end
  local kind, bytes = string.match(d[2], '^(%l+):(.*)$')
  local shelf, member = kind .. ':' .. d[1], id .. ':' .. bytes
  if redis.call('ZREM', key('shelf', shelf), member) == 1 then
    local _, total = read_member(member)
    redis.call('HINCRBY', key('shelf:bytes'), shelf, -total)
  end
  redis.call('HDEL', key('d', id), 'shelved')
end

-- What ended sooner than this after it was made, its maker may take for having ended when it was made.
local SOON = 60 * 1000000

-- How one that goes before its time ended, for whoever asks later; for `life` µs.
local function note_end(id, state, created_at, ended_at, life)
  if state == 'dead' or tonumber(ended_at) - tonumber(created_at) > SOON then
    redis.call('SET', key('d', id, 'end'), state .. ' ' .. ended_at, 'PX', math.ceil(life / 1000))
  end
end
