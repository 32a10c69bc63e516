#!lua flags=no-writes,allow-oom
-- Looks at the sealed values in hashes.
-- KEYS 1 partition prefix
-- ARGV 1 identifier of the sealing key that is well, '' to have none of the values,
--      then for each hash: its name under the prefix, its sealed fields by commas or '' for every one, how many words
--      stand before what is sealed
-- Returns for each hash {{key identifier, how many values are under it, ...}, {{field, value} under another key}}
-- include: base
local well, found = ARGV[1], {}

local function values_of(hash, fields)
  if fields == '' then return redis.call('HGETALL', hash) end
  local flat = {}
  for field in string.gmatch(fields, '[^,]+') do
    flat[#flat + 1] = field
    flat[#flat + 1] = redis.call('HGET', hash, field)
  end
  return flat
end

for at = 2, #ARGV, 3 do
  local told, places, others = {}, {}, {}
  local sealed_by = '^' .. string.rep('%S+ ', tonumber(ARGV[at + 2])) .. '([%w_-]+)%.'
  local flat = values_of(key(ARGV[at]), ARGV[at + 1])
  for n = 1, #flat, 2 do
    local field, value = flat[n], flat[n + 1]
    if value then
      local kid = string.match(value, sealed_by) or '?'
      if not places[kid] then
        places[kid] = #told + 2
        told[#told + 1] = kid
        told[#told + 1] = 0
      end
      told[places[kid]] = told[places[kid]] + 1
      if well ~= '' and kid ~= well then others[#others + 1] = {field, value} end
    end
  end
  found[#found + 1] = {told, others}
end
return found
