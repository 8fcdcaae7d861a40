"""The steps of a ledger in Redis, as one Lua script."""

from typing import Final

from .redis_line import LINE

# In a module, not in a file of its own: what freezes programs collects modules only.
_ROWS: Final = r"""
-- The ledger's steps, each atomic: one script, run by name. Times are seconds by Redis's clock.
--
-- rows        hash    id -> session id, row as JSON     line      sorted set  id by its turn
-- owned       sorted  "owner\0id", by name              tickets   hash        id -> who waits, as JSON
-- keys        sorted  "hash of key\0id", by name        workers   sorted set  owner by its lease's end
-- unresolved  sorted  id by its expiry                   claimed   hash        id -> who claimed it
-- claimed_at  sorted  id by when it was claimed         engine    hash        heard, since, run, born, counted, most, mending
-- foreign     hash    late owner -> how many rows of it an endpoint cannot stop, by endpoint, as JSON
-- grouped     sorted  "hash of group\0id", by name      parked      sorted set  id of those whose group is full
-- names       hash    name -> the worker that has it, and what it told of its process, as JSON
-- standing    sorted  "hash of group\0turn id" of those in the line, by name
--
-- Older workers know "unresolved" as nobody's rows only: theirs get there when claimed.
local ROWS, OWNED, HELD_KEYS, EXPIRING, LINE, TICKETS, WORKERS, CLAIMED, CLAIMED_AT, ENGINE, FOREIGN, NAMES,
  GROUPED, PARKED, STANDING =
  unpack(KEYS)
-- In the place of who claimed a row "." says that it is over, or called off, by the worker that
-- follows, who tells of it.
local CHANNEL, REMEMBERED, MOST_CLAIMED, MOST_PASSED, PORTION, NOBODY, OVER =
  ARGV[2], 86400, 500, 2000, 500, '', '.'

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
-- What this call has done: for which workers it knows which ledger this is, and how many places it
-- made free.
local known_to, freed = {}, 0

local function of(index, name, skip, most)
  local ids, from, to = {}, '[' .. name .. '\0', '(' .. name .. '\1'
  local found = redis.call('ZRANGEBYLEX', index, from, to, 'LIMIT', skip or 0, most or -1)
  for _, member in ipairs(found) do ids[#ids + 1] = string.sub(member, #name + 2) end
  return ids
end

-- A row's session id stands before it, with its length, so that not all of it has to be read.
local function unpacked(text)
  local length, first = string.match(text, '^(%d+):()')
  if not length then return '', '' end
  return string.sub(text, first, first + length - 1), string.sub(text, first + length)
end

-- What is no JSON is nothing: a row of nonsense must not stop what others do.
local function decoded(text)
  local is_json, value = pcall(cjson.decode, text or '')
  return is_json and type(value) == 'table' and value or nil
end

local function read(id)
  local text = redis.call('HGET', ROWS, id)
  local row = text and decoded(select(2, unpacked(text))) or {}
  return row.id == id and row.key and row.owner and row.endpoint and row.expires and row or nil
end

local function index(row)
  redis.call('ZADD', HELD_KEYS, 0, redis.sha1hex(row.key) .. '\0' .. row.id)
  redis.call('ZADD', EXPIRING, row.expires, row.id)
  redis.call('ZADD', OWNED, 0, row.owner .. '\0' .. row.id)
  if row.group then redis.call('ZADD', GROUPED, 0, redis.sha1hex(row.group) .. '\0' .. row.id) end
end

local function write(row)
  local session = row.session_id or ''
  redis.call('HSET', ROWS, row.id, #session .. ':' .. session .. cjson.encode(row))
  index(row)
end

local function forget(id)
  local row = read(id) or {key = '', owner = NOBODY} -- as mend finds what cannot be read
  redis.call('HDEL', ROWS, id)
  redis.call('ZREM', EXPIRING, id)
  redis.call('ZREM', HELD_KEYS, redis.sha1hex(row.key) .. '\0' .. id)
  redis.call('ZREM', OWNED, row.owner .. '\0' .. id)
  if row.group then redis.call('ZREM', GROUPED, redis.sha1hex(row.group) .. '\0' .. id) end
end
"""

_STEPS: Final = r"""
-- Find a portion of the rows again by all that leads to them, while some of it is missing: it was
-- evicted, or an older worker wrote them. What cannot be read goes in a day.
local function mend(lease)
  local rows, tickets = redis.call('HLEN', ROWS), redis.call('HLEN', TICKETS)
  if redis.call('ZCARD', EXPIRING) > rows then
    redis.call('DEL', EXPIRING) -- rows were evicted: places are counted when they are back
    redis.call('HSET', ENGINE, 'counted', now + lease)
  end
  local cursor = redis.call('HGET', ENGINE, 'mending')
  local least = math.min(redis.call('ZCARD', HELD_KEYS), redis.call('ZCARD', OWNED))
  local is_whole = least >= rows + tickets and redis.call('ZCARD', EXPIRING) >= rows
    and redis.call('ZCARD', LINE) + redis.call('ZCARD', PARKED) >= tickets
    and redis.call('ZCARD', STANDING) >= redis.call('ZCARD', LINE) and (rows == 0 or redis.call('EXISTS', WORKERS) == 1)
  if is_whole and not cursor then return end
  local found = redis.call('HSCAN', ROWS, cursor or '0', 'COUNT', 200)
  for place = 1, #found[2], 2 do
    local id = found[2][place]
    local ends = redis.call('ZSCORE', EXPIRING, id) or now + REMEMBERED
    local row = read(id) or {id = id, key = '', owner = NOBODY, expires = ends}
    index(row)
    if row.owner ~= NOBODY then redis.call('ZADD', WORKERS, 'NX', now, row.owner) end
  end
  redis.call('HSET', ENGINE, 'mending', found[1])
  if found[1] ~= '0' then return end
  redis.call('HDEL', ENGINE, 'mending')
  for _, id in ipairs(redis.call('HKEYS', TICKETS)) do
    local ticket = decoded(redis.call('HGET', TICKETS, id))
    if ticket then
      set_ticket(id, ticket)
      if ticket.most == 0 then
        redis.call('ZADD', PARKED, 0, id)
      elseif ticket.turn then
        stand(id, ticket)
      else
        join(id, ticket) -- an older worker's
      end
    else
      redis.call('HDEL', TICKETS, id)
    end
  end
end

-- Take a worker's name from it.
local function unname(worker)
  for _, name in ipairs(redis.call('HKEYS', NAMES)) do
    local holder = decoded(redis.call('HGET', NAMES, name))
    if not holder or holder.owner == worker then redis.call('HDEL', NAMES, name) end
  end
end

-- Note that a worker lives, forget what is over at the latest by now, and tell which ledger this is.
-- Nobody is late for a while in which nobody could be heard. A server that was started anew, or is
-- not the one that a worker knew, may have forgotten rows: places are counted when all workers had
-- the time to write theirs again. Who leaves is not heard: that would hide a while of silence.
local function hear(worker, lease, knew)
  if known_to[worker] then return known_to[worker] end
  if lease == 0 then
    redis.call('ZADD', WORKERS, now, worker)
    return knew
  end
  local heard, before, born, counted =
    unpack(redis.call('HMGET', ENGINE, 'heard', 'run', 'born', 'counted'))
  heard = tonumber(heard or 0)
  if now < heard then
    -- The server's clock was set back: everybody has, or waits for, as long as before.
    for _, one in ipairs(redis.call('ZRANGE', WORKERS, 0, -1)) do
      redis.call('ZINCRBY', WORKERS, now - heard, one)
    end
    if counted then redis.call('HINCRBYFLOAT', ENGINE, 'counted', now - heard) end
  end
  mend(lease)
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'unknown'
  born = born or run .. clock[1] .. '.' .. clock[2]
  local lost = before and before ~= run or not counted and knew ~= '' and knew ~= born
  if lost or math.abs(now - heard) > lease / 2 then
    redis.call('HSET', ENGINE, 'since', now)
  end
  if lost then redis.call('HSET', ENGINE, 'counted', now + lease) end
  redis.call('HSET', ENGINE, 'heard', now, 'run', run, 'born', born)
  redis.call('ZADD', WORKERS, now + lease, worker)
  redis.call('HDEL', FOREIGN, worker)
  local over = redis.call('ZRANGEBYSCORE', EXPIRING, '-inf', now, 'LIMIT', 0, PORTION)
  for _, id in ipairs(over) do
    forget(id)
  end
  freed = freed + #over
  known_to[worker] = born
  return born
end

local function holder_of(key, owner)
  for _, id in ipairs(of(HELD_KEYS, redis.sha1hex(key))) do
    local one = read(id) or decoded(redis.call('HGET', TICKETS, id))
    if one and one.owner ~= owner and one.owner ~= NOBODY then return one.owner end
  end
end

-- Whether a worker has ended the row's session, or called its start off.
local function is_over(id)
  local claimer = redis.call('HGET', CLAIMED, id)
  return claimer and string.sub(claimer, 1, 1) == OVER
end

-- Let a worker know of that.
local function tell(owner, id, by)
  if redis.call('HEXISTS', CLAIMED, id) == 0 then
    redis.call('HSET', CLAIMED, id, OVER .. by)
    redis.call('ZADD', CLAIMED_AT, now, id)
  end
  redis.call('PUBLISH', CHANNEL .. owner, id)
end

local steps = {}

-- Whether the row's group has as many rows as it may have.
local function is_group_full(row, most)
  if most == '' or not row.group then return false end
  local name = redis.sha1hex(row.group)
  return redis.call('ZLEXCOUNT', GROUPED, '[' .. name .. '\0', '(' .. name .. '\1') >= tonumber(most)
end

function steps.place(knew, text, seconds, most, wait, lease, group_most, renews)
  local row = cjson.decode(text)
  local born = hear(row.owner, tonumber(lease), knew)
  if is_over(row.id) then return {born, 'called off', '', '0'} end
  if redis.call('HEXISTS', ROWS, row.id) == 1 then return {born, 'placed', '', '0'} end
  local holder = holder_of(row.key, row.owner)
  if holder then
    leave_line(row.id)
    return {born, 'held', holder, '0'}
  end
  local left = math.max(0, tonumber(redis.call('HGET', ENGINE, 'counted') or 0) - now)
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
    redis.call('HSET', ENGINE, 'most', math.max(ticket.most, tonumber(greatest)))
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
      redis.call('HDEL', CLAIMED, row.id) -- it came all the same, and is there to be ended
    end
    forget(row.id)
  else
    local claimer = redis.call('HGET', CLAIMED, row.id)
    if claimer then return is_over(row.id) and NOBODY or claimer end
  end
  row.started, row.expires = before and before.started or now, now + tonumber(seconds)
  leave_line(row.id, true)
  write(row)
  -- It may have been late, and forgotten: if it says no more, it must be late again.
  redis.call('ZADD', WORKERS, 'NX', now, row.owner)
  redis.call('HDEL', FOREIGN, row.owner)
  return holder_of(row.key, row.owner) or row.owner
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
  local row = read(id) or decoded(redis.call('HGET', TICKETS, id))
  local claimer = redis.call('HGET', CLAIMED, id)
  forget(id)
  leave_line(id)
  if row and row.owner ~= worker then tell(row.owner, id, worker) end
  freed = freed + 1
  if row then return 1 end
  return claimer and claimer ~= OVER and 0
end

function steps.call_off(key, worker)
  local told = {tostring(now)}
  for _, id in ipairs(of(HELD_KEYS, redis.sha1hex(key))) do
    local row = read(id)
    local one = row or decoded(redis.call('HGET', TICKETS, id))
    if one and one.owner ~= worker and one.owner ~= NOBODY then
      if row then
        told[#told + 1] = cjson.encode(row)
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
  -- As one text: to read ten thousand answers would keep a worker's loop for long.
  return {born, #told > 0 and cjson.encode(told) or '[]'}
end

function steps.enlist(knew, worker, name, process, lease, dead)
  local born = hear(worker, tonumber(lease), knew)
  local holder = decoded(redis.call('HGET', NAMES, name))
  local ends = holder and holder.owner ~= worker and redis.call('ZSCORE', WORKERS, holder.owner)
  if ends and holder.owner == dead then
    redis.call('ZADD', WORKERS, math.min(now, tonumber(ends)), dead)
  elseif ends then
    local since = tonumber(redis.call('HGET', ENGINE, 'since') or 0)
    if tonumber(ends) > now or now - since < tonumber(lease) then
      return {born, holder.owner, holder.process, ends}
    end
  end
  redis.call('HSET', NAMES, name, cjson.encode({owner = worker, process = process}))
  return {born}
end

-- Claim of one owner; whether there may be more. What another endpoint has to stop is read once.
local function claim_of(owner, worker, endpoint, taken, settles)
  local known = decoded(redis.call('HGET', FOREIGN, owner)) or {}
  local count = redis.call('ZLEXCOUNT', OWNED, '[' .. owner .. '\0', '(' .. owner .. '\1')
  local passed = math.min(known[endpoint] or 0, count)
  if count > 0 and passed == count then return true end
  local left, ids = passed, nil
  repeat
    ids = left < passed + MOST_PASSED and of(OWNED, owner, left, PORTION) or {}
    for _, id in ipairs(ids) do
      if #taken == MOST_CLAIMED then return true end
      local row = read(id)
      if not row then
        leave_line(id)
        redis.call('ZREM', OWNED, owner .. '\0' .. id)
      elseif row.session_id and row.endpoint ~= endpoint then
        left = left + 1
        redis.call('ZADD', EXPIRING, row.expires, id)
      else
        forget(id)
        taken[#taken + 1] = cjson.encode(row)
        local may_settle = settles == '1' and row.marker and row.endpoint == endpoint
        row.owner = (row.session_id or may_settle) and worker or NOBODY
        write(row)
        redis.call('HSET', CLAIMED, id, row.owner)
        redis.call('ZADD', CLAIMED_AT, now, id)
      end
    end
  until #ids == 0
  known[endpoint] = left
  redis.call('HSET', FOREIGN, owner, cjson.encode(known))
  if left == 0 then redis.call('HDEL', FOREIGN, owner) end
  return left > 0
end

function steps.claim(knew, worker, endpoint, lease, at_once, dead, settles)
  local born = hear(worker, tonumber(lease), knew)
  local since = tonumber(redis.call('HGET', ENGINE, 'since') or 0)
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
  if not row or row.owner ~= worker or row.session_id then return end
  forget(id)
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
    told[#told + 1] = redis.call('ZLEXCOUNT', OWNED, '[' .. worker .. '\0', '(' .. worker .. '\1')
  end
  return told
end

function steps.call(worker) call(nil, worker) end

-- Steps of several sessions, one after the other.
function steps.all(texts)
  local told = {}
  for place, words in ipairs(cjson.decode(texts)) do
    told[place] = steps[words[1]](unpack(words, 2)) or false
  end
  return told
end

local told = steps[ARGV[1]](unpack(ARGV, 3))
if freed > 0 then call(freed) end
return told
"""

SCRIPT: Final = _ROWS + LINE + _STEPS
