-- Fragment: keys, the store's time, and small readers. KEYS[1] is the partition's prefix, which
-- carries the hash tag: every other key is built here, under it, and so stays in its slot.
local function key(...)
  return KEYS[1] .. table.concat({...}, ':')
end

-- Microseconds since the epoch. A number stays a number on its way into a command: concatenated, Lua
-- would print it as 1.79e+15.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local now = clock()

-- Members that go to the tail within one script keep their order.
local turns = 0
local function turn()
  turns = turns + 1
  return now + turns
end

local function head_score(set)
  local head = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2])
end
