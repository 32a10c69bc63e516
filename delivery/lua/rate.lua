-- include: base
-- Fragment: so many attempts a second and no more, by the generic cell rate algorithm. An endpoint keeps one instant,
-- `tat`: when what it was given would be used up at its rate. It may be ahead of now by what may come at once, which
-- is what a second allows and at least one attempt.
local function pace_of(rate)
  local interval = 1000000 / rate
  return interval, (math.max(1, math.floor(rate)) - 1) * interval
end

-- The instant at which one attempt more may begin; 0 without a rate.
local function rate_opens(rate, tat)
  rate, tat = tonumber(rate), tonumber(tat)
  if not rate or not tat then return 0 end
  local _, tolerance = pace_of(rate)
  return math.ceil(tat - tolerance)
end

-- How many attempts may begin now.
local function rate_free(rate, tat)
  rate = tonumber(rate)
  if not rate then return math.huge end
  local interval, tolerance = pace_of(rate)
  local ahead = math.max(0, (tonumber(tat) or 0) - now)
  -- One µs of slack: `tat` is kept in whole ones.
  return math.floor((tolerance - ahead + 1) / interval) + 1
end

local function rate_spend(ep, rate, tat, attempts)
  rate = tonumber(rate)
  if not rate or attempts == 0 then return end
  local spent = math.max(now, tonumber(tat) or 0) + attempts * pace_of(rate)
  redis.call('HSET', key('ep', ep), 'tat', string.format('%.0f', spent))
end

-- The slower of the rate that an operator set and that of an endpoint which is not verified, or the part of it that is
-- this partition's; nil without either.
local function slower(rate, unverified, part)
  local slow = math.min(tonumber(rate) or math.huge, tonumber(unverified) or math.huge)
  return slow < math.huge and slow * (tonumber(part) or 1) or nil
end
