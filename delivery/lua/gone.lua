-- include: base
-- Fragment: URLs that an endpoint's deliveries are not sent to, because the receiver answered 410 or a person said so.
-- `ep:<e>:gone` has for the hash of each `<since> <why> <row> <the URL, sealed for that row>`; why is `gone` or
-- `operator`.
local GONE_MOST = 100

local function is_disabled(ep, url_hash)
  return redis.call('HEXISTS', key('ep', ep, 'gone'), url_hash) == 1
end

local function disable_url(ep, url_hash, why, row, sealed)
  redis.call('HSETNX', key('ep', ep, 'gone'), url_hash, string.format('%.0f %s %s ', now, why, row) .. sealed)
end

-- The receiver answered 410. Of too many such URLs the one that did so longest ago is forgotten: it will say so again.
-- True when this one was not disabled before.
local function url_gone(ep, url_hash, id)
  local gone = key('ep', ep, 'gone')
  if redis.call('HEXISTS', gone, url_hash) == 1 then return false end
  if redis.call('HLEN', gone) >= GONE_MOST then
    local flat, oldest, since = redis.call('HGETALL', gone), nil, math.huge
    for at = 1, #flat, 2 do
      local when, why = string.match(flat[at + 1], '^(%d+) (%S+)')
      if why == 'gone' and tonumber(when) < since then oldest, since = flat[at], tonumber(when) end
    end
    if not oldest then return false end
    redis.call('HDEL', gone, oldest)
  end
  disable_url(ep, url_hash, 'gone', id, redis.call('HGET', key('d', id), 'url'))
  return true
end
