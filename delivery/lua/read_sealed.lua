#!lua flags=no-writes,allow-oom
-- Looks at the sealed values in hashes.
-- KEYS 1 partition prefix
-- ARGV 1 identifier of the sealing key that is well, '' to have none of the values,
--      then for each hash: its name under the prefix, its sealed fields by commas
-- Returns for each hash {{key identifier, how many values are under it, ...}, {{field, value} under another key}}
-- include: base
local well, found = ARGV[1], {}
for at = 2, #ARGV, 2 do
  local order, counts, others = {}, {}, {}
  for field in string.gmatch(ARGV[at + 1], '[^,]+') do
    local value = redis.call('HGET', key(ARGV[at]), field)
    if value then
      local kid = string.match(value, '^([%w_-]+)%.') or '?'
      if not counts[kid] then order[#order + 1] = kid end
      counts[kid] = (counts[kid] or 0) + 1
      if well ~= '' and kid ~= well then others[#others + 1] = {field, value} end
    end
  end
  local told = {}
  for _, kid in ipairs(order) do
    told[#told + 1] = kid
    told[#told + 1] = counts[kid]
  end
  found[#found + 1] = {told, others}
end
return found
