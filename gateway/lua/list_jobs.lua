#!lua flags=no-writes,allow-oom
-- A tenant's jobs, newest first, from a place on; without inputs, results and attempts.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 status or '', 3 type or '', 4 made at or after this instant (µs) or '-inf',
--      5 made at or before this instant (µs) or '+inf', 6 job to go on after at that instant or '',
--      7 at most how many, 8 at most how many to look at
-- Returns {rows, made at, job}: each row is {job, view}; the other two are the last place looked at, false when there
-- is nothing beyond it
-- include: job
local status, wanted_type, after = ARGV[2], ARGV[3], ARGV[6]
local limit, scan = tonumber(ARGV[7]), tonumber(ARGV[8])
local index = status == '' and key('jobs', ARGV[1]) or key('jobs', ARGV[1], status)
local PAGE = 200
local FIELDS = {'tenant', 'type', 'status', 'rev', 'priority', 'metadata', 'callbackUrl', 'endpoint', 'urlHash', 'events',
  'onComplete', 'attempt', 'maxAttempts', 'timeout', 'queueTimeout', 'resultTtl', 'createdAt', 'runAt', 'nextRunAt',
  'startedAt', 'attemptAt', 'updatedAt', 'completedAt', 'expiresAt', 'progress', 'message', 'cancelRequested', 'error',
  'errorCode', 'retryOf', 'retriedAs'}

local function summary(id)
  local values, hash = redis.call('HMGET', key('j', id), unpack(FIELDS)), {}
  for at, name in ipairs(FIELDS) do
    if values[at] then
      hash[#hash + 1] = name
      hash[#hash + 1] = values[at]
    end
  end
  return {now, hash, callback_state(id), redis.call('HGET', key('durations'), values[2])}
end

local rows, looked, offset, at_made, at_id = {}, 0, 0, false, false
while true do
  local page = redis.call('ZREVRANGEBYSCORE', index, ARGV[5], ARGV[4], 'WITHSCORES', 'LIMIT', offset, PAGE)
  offset = offset + PAGE
  for at = 1, #page, 2 do
    local id, made = page[at], page[at + 1]
    -- Of those made at one instant the greatest identifier comes first.
    if after == '' or made ~= ARGV[5] or id < after then
      if #rows >= limit or looked >= scan then return {rows, at_made, at_id} end
      looked, at_made, at_id = looked + 1, made, id
      local type = redis.call('HGET', key('j', id), 'type')
      if type and (wanted_type == '' or type == wanted_type) then rows[#rows + 1] = {id, summary(id)} end
    end
  end
  if #page < 2 * PAGE then return {rows, false, false} end
end
