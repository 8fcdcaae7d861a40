"""The part of the Redis script that restores lost keys and removes expired rows."""

from typing import Final

MEND: Final = r"""
-- After a loss no worker counts as stalled: all have the time of a lease for a heartbeat.
local function forgive() redis.call('HSET', ENGINE, 'since', now) end

-- Note the end of a worker's lease.
local function note(...)
  if redis.call('EXISTS', WORKERS) == 0 and redis.call('HLEN', ROWS) > 0 then
    redis.call('HSET', ENGINE, 'mending', '0')
    forgive()
  end
  return redis.call('ZADD', WORKERS, ...)
end

-- Slots are counted again when all workers had the time to write lost rows.
local function recount(lease) redis.call('HSET', ENGINE, 'counted', now + lease) end

-- Restore the keys for waiting rows; drop rows that wait in no queue, or cannot be read.
local function mend_queues()
  for _, queue in ipairs({LINE, PARKED}) do
    for _, id in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
      if redis.call('HEXISTS', TICKETS, id) == 0 then redis.call('ZREM', queue, id) end
    end
  end
  for _, id in ipairs(redis.call('HKEYS', TICKETS)) do
    local ticket = ticket_of(id)
    if not ticket then
      leave_line(id)
    else
      set_ticket(id, ticket)
      redis.call('ZREM', ticket.most == 0 and LINE or PARKED, id)
      if ticket.most == 0 then
        redis.call('ZADD', PARKED, 0, id)
      elseif ticket.turn then
        stand(id, ticket)
      else
        join(id, ticket) -- an older worker's
      end
    end
  end
end

-- Restore the keys that lead to a portion of the rows, while some are missing: they were evicted, or
-- an older worker wrote the rows. Rows that cannot be read expire in a day.
local function mend(lease)
  local rows, tickets = redis.call('HLEN', ROWS), redis.call('HLEN', TICKETS)
  if redis.call('ZCARD', EXPIRING) > rows then
    redis.call('DEL', EXPIRING)
    recount(lease)
  end
  local is_lost = number(redis.call('HGET', ENGINE, 'groups')) > 0 and redis.call('EXISTS', GROUPED) == 0
  if is_lost then
    redis.call('HDEL', ENGINE, 'groups')
    recount(lease)
  end
  local cursor = redis.call('HGET', ENGINE, 'mending')
  local least = math.min(redis.call('ZCARD', HELD_KEYS), redis.call('ZCARD', OWNED))
  local is_whole = least >= rows + tickets and redis.call('ZCARD', EXPIRING) >= rows and not is_lost
    and redis.call('ZCARD', LINE) + redis.call('ZCARD', PARKED) == tickets
    and redis.call('ZCARD', STANDING) >= redis.call('ZCARD', LINE)
    and (rows == 0 or redis.call('EXISTS', WORKERS) == 1)
  if is_whole and not cursor then return end
  local found = redis.call('HSCAN', ROWS, cursor or '0', 'COUNT', 200)
  for place = 1, #found[2], 2 do
    local id = found[2][place]
    local ends = redis.call('ZSCORE', EXPIRING, id) or now + REMEMBERED
    local row = read(id) or {id = id, key = '', owner = NOBODY, expires = ends}
    index(row)
    if row.owner ~= NOBODY and note('NX', now, row.owner) == 1 then forgive() end
  end
  redis.call('HSET', ENGINE, 'mending', found[1])
  if found[1] ~= '0' then return end
  redis.call('HDEL', ENGINE, 'mending')
  mend_queues()
end

-- Free the name of a worker.
local function unname(worker)
  for _, name in ipairs(redis.call('HKEYS', NAMES)) do
    local holder = decoded(redis.call('HGET', NAMES, name), NAMESAKE)
    if not holder or holder.owner == worker then redis.call('HDEL', NAMES, name) end
  end
end

-- Note a heartbeat, remove expired rows, and return the identity of this ledger.
-- No worker is stalled because of a time in which no heartbeat could arrive, unless at_once says so:
-- each living worker sends one a second, and QUIET is in seconds. A server that was
-- restarted, or that differs from the one that a worker knew, may lack rows: slots are counted when
-- all workers had the time to write theirs. The call of a worker that leaves is no heartbeat: it would hide
-- a time without heartbeats.
local QUIET, QUIET_AT_MOST = 5, 86400
local function hear(worker, lease, knew, at_once)
  if known_to[worker] then return known_to[worker] end
  if lease == 0 then
    note(now, worker)
    return knew
  end
  local heard, before, born, counted =
    unpack(redis.call('HMGET', ENGINE, 'heard', 'run', 'born', 'counted'))
  heard = number(heard)
  local ahead = now - heard
  if ahead < 0 or ahead > QUIET and ahead < QUIET_AT_MOST and not at_once then
    -- The clock was set, or no heartbeat could arrive: leases and waits last as long as before.
    for _, one in ipairs(redis.call('ZRANGE', WORKERS, 0, -1)) do
      redis.call('ZINCRBY', WORKERS, ahead, one)
    end
    if tonumber(counted) then redis.call('HINCRBYFLOAT', ENGINE, 'counted', ahead) end
  end
  mend(lease)
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'unknown'
  born = born or run .. clock[1] .. '.' .. clock[2]
  local lost = before and before ~= run or not counted and knew ~= '' and knew ~= born
  if lost or math.abs(ahead) > lease / 2 then forgive() end
  if lost then recount(lease) end
  redis.call('HSET', ENGINE, 'heard', now, 'run', run, 'born', born)
  note(now + lease, worker)
  redis.call('HDEL', FOREIGN, worker)
  local over = redis.call('ZRANGEBYSCORE', EXPIRING, '-inf', now, 'LIMIT', 0, PORTION)
  for _, id in ipairs(over) do
    forget(id)
  end
  freed = freed + #over
  known_to[worker] = born
  return born
end

-- All keys expire within days of the last row's end, if the ledger is not used any more.
local function keep()
  local last = redis.call('ZRANGE', EXPIRING, -1, -1, 'WITHSCORES')[2]
  local least = math.max(number(last) - now, 0) + REMEMBERED
  for _, key in ipairs(KEYS) do
    local left = redis.call('TTL', key)
    if left ~= -2 and left < least then redis.call('EXPIRE', key, math.ceil(least + REMEMBERED)) end
  end
end
"""
