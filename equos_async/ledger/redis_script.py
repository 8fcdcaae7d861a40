"""The steps of a ledger in Redis, as one Lua script."""

from typing import Final

from .redis_line import LINE
from .redis_mend import MEND
from .redis_tables import TABLES

_STEPS: Final = r"""
local function holder_of(key, owner)
  for _, id in ipairs(of(HELD_KEYS, redis.sha1hex(key))) do
    local one = read(id) or ticket_of(id)
    if one and one.owner ~= owner and one.owner ~= NOBODY then return one.owner, one.session_id end
  end
end

-- Whether a worker has ended the row's session, or called its start off.
local function is_over(id)
  local claimer = redis.call('HGET', CLAIMED, id)
  return claimer and string.sub(claimer, 1, 1) == OVER
end

-- Tell a worker that its session is over, or its start called off.
local has_told = false
local function tell(owner, id, by)
  has_told = true
  if redis.call('HEXISTS', CLAIMED, id) == 0 then
    redis.call('HSET', CLAIMED, id, OVER .. by)
    redis.call('ZADD', CLAIMED_AT, now, id)
  end
  redis.call('PUBLISH', CHANNEL .. owner, id)
end

local steps = {}

local function count_of(index, name)
  return redis.call('ZLEXCOUNT', index, '[' .. name .. '\0', '(' .. name .. '\1')
end

-- Whether the row's group is at its limit. Names of rows that do not exist any more are removed first.
local function is_group_full(row, most)
  if most == '' or not row.group then return false end
  local name, most = redis.sha1hex(row.group), tonumber(most)
  if count_of(GROUPED, name) < most then return false end
  for _, id in ipairs(of(GROUPED, name)) do
    if redis.call('HEXISTS', ROWS, id) == 0 then leave_group(name, id) end
  end
  return count_of(GROUPED, name) >= most
end

function steps.place(knew, text, seconds, most, wait, lease, group_most, renews)
  local row = cjson.decode(text)
  local born = hear(row.owner, tonumber(lease), knew)
  if is_over(row.id) then return {born, 'called off', '', '0'} end
  if redis.call('HEXISTS', ROWS, row.id) == 1 then return {born, 'placed', '', '0'} end
  local holder, session = holder_of(row.key, row.owner)
  if holder then
    leave_line(row.id)
    return {born, 'held', holder, '0', session}
  end
  local left = math.max(0, number(redis.call('HGET', ENGINE, 'counted')) - now)
  local is_full = is_group_full(row, group_most)
  local ticket = {key = row.key, owner = row.owner, most = tonumber(most), group = row.group}
  ticket.renews = renews == '1' or nil
  local greatest = redis.call('ZCARD', LINE) > 0 and redis.call('HGET', ENGINE, 'most') or 0
  if left == 0 and not is_full and take(row.id, ticket) then
    row.started, row.expires = now, now + tonumber(seconds)
    write(row)
    return {born, 'placed', '', '0'}
  end
  if wait ~= '1' then
    leave_line(row.id)
  else
    redis.call('HSET', ENGINE, 'most', math.max(ticket.most, number(greatest)))
    if is_full then park(row.id, ticket) else join(row.id, ticket) end
  end
  return {born, is_full and 'group full' or 'full', '', tostring(left)}
end

local function record(row, seconds)
  local before = read(row.id)
  if before then
    if before.owner ~= row.owner and before.owner ~= NOBODY then return before.owner end
    if is_over(row.id) then
      if not row.session_id then return NOBODY end
      redis.call('HDEL', CLAIMED, row.id) -- the session came after all, and has to be stopped
    end
    forget(row.id, before)
  else
    local claimer = redis.call('HGET', CLAIMED, row.id)
    if claimer then return is_over(row.id) and NOBODY or claimer end
  end
  row.started, row.expires = before and before.started or now, now + tonumber(seconds)
  leave_line(row.id, true)
  -- The worker may be stalled and forgotten: without a further heartbeat it must count as stalled.
  note('NX', now, row.owner)
  write(row)
  redis.call('HDEL', FOREIGN, row.owner)
  return (holder_of(row.key, row.owner)) or row.owner
end

function steps.record(text, seconds) return record(cjson.decode(text), seconds) end

function steps.record_all(knew, worker, lease, texts, seconds)
  local told = {hear(worker, tonumber(lease), knew)}
  seconds = cjson.decode(seconds)
  for place, text in ipairs(cjson.decode(texts)) do
    told[#told + 1] = record(cjson.decode(text), seconds[place])
  end
  return told
end

function steps.remove(id, worker)
  local row = read(id)
  local claimer = redis.call('HGET', CLAIMED, id)
  local was_there = forget(id, row)
  row = row or ticket_of(id)
  leave_line(id)
  redis.call('ZREM', OWNED, worker .. '\0' .. id) -- if the row is unreadable
  if row and row.owner ~= worker then tell(row.owner, id, worker) end
  freed = freed + 1
  if row or was_there then return 1 end
  return claimer and claimer ~= OVER and 0
end

function steps.call_off(key, worker)
  local told = {tostring(now)}
  for _, id in ipairs(of(HELD_KEYS, redis.sha1hex(key))) do
    local row = read(id)
    local one = row or ticket_of(id)
    if one and one.owner ~= worker and one.owner ~= NOBODY then
      if row then
        told[#told + 1] = encoded(row)
      else
        leave_line(id)
        freed = freed + 1
      end
      if not one.session_id then tell(one.owner, id, worker) end
    end
  end
  return told
end

function steps.renew(knew, worker, lease)
  local born, told, held = hear(worker, tonumber(lease), knew), {}, of(OWNED, worker)
  if tonumber(lease) == 0 then unname(worker) end
  for first = 1, #held, PORTION do
    local last = math.min(first + PORTION - 1, #held)
    for place, text in ipairs(redis.call('HMGET', ROWS, unpack(held, first, last))) do
      told[#told + 1] = held[first + place - 1]
      told[#told + 1] = text and (unpacked(text)) or ''
    end
  end
  -- As one text, because reading ten thousand values would block the worker's event loop.
  return {born, #told > 0 and cjson.encode(told) or '[]'}
end

function steps.enlist(knew, worker, name, process, lease, dead)
  local born = hear(worker, tonumber(lease), knew)
  local holder = decoded(redis.call('HGET', NAMES, name), NAMESAKE)
  local ends = holder and holder.owner ~= worker and redis.call('ZSCORE', WORKERS, holder.owner)
  if ends and holder.owner == dead then
    redis.call('ZADD', WORKERS, math.min(now, tonumber(ends)), dead)
  elseif ends then
    local since = number(redis.call('HGET', ENGINE, 'since'))
    if tonumber(ends) > now or now - since < tonumber(lease) then
      return {born, holder.owner, holder.process, ends}
    end
  end
  redis.call('HSET', NAMES, name, cjson.encode({owner = worker, process = process}))
  return {born}
end

-- Claim the rows of one stalled worker; returns whether some are left. Rows that another endpoint or a
-- newer worker has to stop are read only once.
local function claim_of(owner, worker, endpoint, taken, settles)
  local known, mine = decoded(redis.call('HGET', FOREIGN, owner), {}) or {}, ROW_VERSION .. ' ' .. endpoint
  local count = count_of(OWNED, owner)
  local passed = math.min(number(known[mine]), count)
  if count > 0 and passed == count then return true end
  local left, ids = passed, nil
  repeat
    ids = left < passed + MOST_PASSED and of(OWNED, owner, left, PORTION) or {}
    for _, id in ipairs(ids) do
      if #taken == MOST_CLAIMED then return true end
      local row = read(id)
      local text = row and encoded(row)
      if not text then
        leave_line(id)
        redis.call('ZREM', OWNED, owner .. '\0' .. id)
      elseif row.session_id and row.endpoint ~= endpoint or (row.version or 1) > ROW_VERSION then
        left = left + 1
        redis.call('ZADD', EXPIRING, row.expires, id)
      else
        forget(id, row)
        taken[#taken + 1] = text
        local may_settle = settles == '1' and row.marker and row.endpoint == endpoint
        row.owner = (row.session_id or may_settle) and worker or NOBODY
        write(row)
        redis.call('HSET', CLAIMED, id, row.owner)
        redis.call('ZADD', CLAIMED_AT, now, id)
      end
    end
  until #ids == 0
  known[mine] = left
  redis.call('HSET', FOREIGN, owner, encoded(known) or '{}')
  if left == 0 then redis.call('HDEL', FOREIGN, owner) end
  return left > 0
end

function steps.claim(knew, worker, endpoint, lease, at_once, dead, settles)
  local born = hear(worker, tonumber(lease), knew, at_once == '1')
  local since = number(redis.call('HGET', ENGINE, 'since'))
  if now - since < tonumber(lease) and at_once == '0' and dead == NOBODY then
    call()
    return {born, tostring(now)}
  end
  local taken = {}
  for _, owner in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', now)) do
    local is_meant = owner ~= worker and (dead == NOBODY or owner == dead)
    if is_meant and not claim_of(owner, worker, endpoint, taken, settles) then
      redis.call('ZREM', WORKERS, owner)
      unname(owner)
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', CLAIMED_AT, '-inf', now - REMEMBERED)) do
    redis.call('ZREM', CLAIMED_AT, id)
    redis.call('HDEL', CLAIMED, id)
  end
  call()
  return {born, tostring(now), unpack(taken)}
end

function steps.give_up(worker, id)
  local row = read(id)
  if not row or row.owner ~= worker or row.session_id or not encoded(row) then return end
  forget(id, row)
  row.owner = NOBODY
  write(row)
  redis.call('HSET', CLAIMED, id, NOBODY)
end

function steps.rows(cursor)
  local found = redis.call('HSCAN', ROWS, cursor, 'COUNT', 500)
  local told = {tostring(now), found[1]}
  for place = 2, #found[2], 2 do
    told[#told + 1] = select(2, unpacked(found[2][place]))
  end
  return told
end

function steps.workers()
  local told = {tostring(now)}
  local found = redis.call('ZRANGE', WORKERS, 0, -1, 'WITHSCORES')
  for place = 1, #found, 2 do
    local worker = found[place]
    told[#told + 1], told[#told + 2] = worker, found[place + 1]
    told[#told + 1] = count_of(OWNED, worker)
  end
  return told
end

-- Call the rows of a worker that have a slot. The empty message shows that its listener is reached.
function steps.call(worker)
  redis.call('PUBLISH', CHANNEL .. worker, '')
  call(nil, worker)
end

-- Several steps, one after the other.
function steps.all(texts)
  local told = {}
  for place, words in ipairs(cjson.decode(texts)) do
    told[place] = steps[words[1]](unpack(words, 2)) or false
  end
  return told
end

-- Rare steps renew the expiry of the keys, and so do those that may create keys. That is often enough,
-- because each worker claims each second.
local SELDOM = {renew = true, claim = true, enlist = true, record_all = true, call_off = true}
local told = steps[ARGV[1]](unpack(ARGV, 3))
if freed > 0 then call(freed) end
if SELDOM[ARGV[1]] or has_told or redis.call('HLEN', ROWS) == 1 then keep() end
return told
"""

SCRIPT: Final = TABLES + LINE + MEND + _STEPS
