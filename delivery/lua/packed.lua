-- include: base
-- Fragment: a delivered delivery that can be sent no more. What only sending needs is gone, its sealed values among it,
-- and what people are shown is one value, the field `packed` of `d:<d>`. In it names are told by their places: of
-- fields in SHOWN, of what an attempt's record says in SAID. Both only grow, at their end.
--
-- Whoever reads a delivery that may be one of these reads it by `fields_of` or `all_of`.
local SHOWN = {'ep', 'tenant', 'tags', 'state', 'reason', 'createdAt', 'endedAt', 'n', 'lastStatus', 'trigger'}
local SAID = {'at', 'trigger', 'outcome', 'statusCode', 'durationMs', 'connectMs', 'firstByteMs', 'nextInMs', 'answer',
  'answerTruncated'}
-- Bytes that one takes beside its value: its name, the place of its name, and that on its shelf.
local PACKED_OVERHEAD = 256

local place_of = {}
for at, name in ipairs(SAID) do place_of[name] = at end

-- Digits as a number, if it is one that gives them back.
local function brief(text)
  if not text then return false end
  local is_number = string.match(text, '^%d+$') and string.format('%.0f', text) == text
  return is_number and tonumber(text) or text
end

-- The record's text as it is when it says what has no place.
local function brief_record(record)
  local values = {}
  for at in ipairs(SAID) do values[at] = false end
  for name, value in pairs(cjson.decode(record)) do
    local kind = type(value)
    if not place_of[name] or value == false or kind == 'table' or kind == 'userdata' then return record end
    values[place_of[name]] = value
  end
  return values
end

-- As a hash would have it.
local function text_of(value)
  if type(value) == 'number' then return string.format('%.0f', value) end
  if type(value) ~= 'table' then return value or false end
  local said = {}
  for at, name in ipairs(SAID) do said[name] = value[at] or nil end
  return cjson.encode(said)
end

-- Returns the bytes that it takes then; nil when there is nothing of it.
local function pack(id)
  local hash, fields, values, attempts = redis.call('HGETALL', key('d', id)), {}, {}, {}
  if #hash == 0 then return nil end
  for at = 1, #hash, 2 do fields[hash[at]] = hash[at + 1] end
  if fields.packed then return PACKED_OVERHEAD + #fields.packed end
  for at, name in ipairs(SHOWN) do values[at] = brief(fields[name]) end
  for name, value in pairs(fields) do
    local number = string.match(name, '^a(%d+)$')
    if number then attempts[#attempts + 1] = {tonumber(number), brief_record(value)} end
  end
  local packed, gone_at = cmsgpack.pack(values, attempts), redis.call('PEXPIRETIME', key('d', id))
  -- Made anew, since a hash that was large once stays laid out for that.
  redis.call('UNLINK', key('d', id), key('d', id, 'body'))
  redis.call('HSET', key('d', id), 'packed', packed)
  if gone_at > 0 then redis.call('PEXPIREAT', key('d', id), gone_at) end
  return PACKED_OVERHEAD + #packed
end

local function unpacked(packed)
  local values, attempts = cmsgpack.unpack(packed)
  local fields = {shelved = string.format('delivered:%d:0', PACKED_OVERHEAD + #packed)}
  for at, name in ipairs(SHOWN) do fields[name] = values[at] or nil end
  for _, each in ipairs(attempts) do fields['a' .. each[1]] = each[2] end
  return fields
end

-- Like HMGET, and for each delivery alike.
local function fields_of(id, names)
  local found = redis.call('HMGET', key('d', id), 'packed', unpack(names))
  local packed = table.remove(found, 1)
  if not packed then return found end
  local fields = unpacked(packed)
  for at, name in ipairs(names) do found[at] = text_of(fields[name]) end
  return found
end

-- Like HGETALL, and for each delivery alike.
local function all_of(id)
  local hash = redis.call('HGETALL', key('d', id))
  if hash[1] ~= 'packed' then return hash end
  local flat = {}
  for name, value in pairs(unpacked(hash[2])) do
    flat[#flat + 1] = name
    flat[#flat + 1] = text_of(value)
  end
  return flat
end
