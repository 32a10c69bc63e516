-- include: told
-- Fragment: URLs that an endpoint's deliveries are not sent to, because the receiver answered 410 or a person said so.
-- `ep:<e>:gone` has for the hash of each an entry, `<since> <why> <row> <the URL, sealed for that row>`; why is `gone`
-- or `operator`.
local GONE_MOST = 100

local function is_disabled(ep, url_hash)
  return redis.call('HEXISTS', key('ep', ep, 'gone'), url_hash) == 1
end

local function entry_of(why, row, sealed)
  return string.format('%.0f %s %s ', now, why, row) .. sealed
end

local function since_of(entry)
  return tonumber(string.match(entry, '^%S+'))
end

-- Of too many URLs that answered 410 the one that did so longest ago is forgotten: it will say so again. False when
-- there is no such one.
local function room_for_gone(ep)
  local gone = key('ep', ep, 'gone')
  if redis.call('HLEN', gone) < GONE_MOST then return true end
  local flat, oldest, since = redis.call('HGETALL', gone), nil, math.huge
  for at = 1, #flat, 2 do
    local when, why = string.match(flat[at + 1], '^(%d+) (%S+)')
    if why == 'gone' and tonumber(when) < since then oldest, since = flat[at], tonumber(when) end
  end
  return oldest ~= nil and redis.call('HDEL', gone, oldest) == 1
end

local function disable_gone(ep, url_hash, entry)
  if is_disabled(ep, url_hash) or not room_for_gone(ep) then return false end
  redis.call('HSET', key('ep', ep, 'gone'), url_hash, entry)
  return true
end

-- The receiver answered 410. True when this URL was not disabled before.
local function url_gone(ep, url_hash, id)
  local entry = entry_of('gone', id, redis.call('HGET', key('d', id), 'url'))
  local is_new = disable_gone(ep, url_hash, entry)
  -- A mirror may not know yet that an operator has enabled it since.
  if is_new or own_of(ep) ~= ep then tell_mirrors(ep, url_hash, entry) end
  return is_new
end

-- As an operator said at `urls_at`: these are disabled, and of the others none that was before.
local function follow_urls(ep, urls_at, entries)
  local gone = key('ep', ep, 'gone')
  local flat = redis.call('HGETALL', gone)
  for at = 1, #flat, 2 do
    if not entries[flat[at]] and since_of(flat[at + 1]) <= urls_at then redis.call('HDEL', gone, flat[at]) end
  end
  redis.call('HSET', key('ep', ep), 'urlsAt', string.format('%.0f', urls_at))
  for url_hash, entry in pairs(entries) do
    if is_disabled(ep, url_hash) or room_for_gone(ep) then redis.call('HSETNX', gone, url_hash, entry) end
  end
end
