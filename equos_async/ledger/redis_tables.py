"""The part of the Redis script for its tables: the rows of a ledger, and how they are read."""

from typing import Final

# In a module, not in a .lua file, because tools that freeze programs collect modules only.
TABLES: Final = r"""
-- The ledger's steps, each atomic: one script, run by name. Times are seconds by Redis's clock.
--
-- rows        hash    id -> session id, row as JSON     line      sorted set  id by its turn
-- owned       sorted  "owner\0id", by name              tickets   hash        id -> waiting row, as JSON
-- keys        sorted  "hash of key\0id", by name        workers   sorted set  owner by its lease's end
-- unresolved  sorted  id by its expiry                   claimed   hash        id -> who claimed it
-- claimed_at  sorted  id by when it was claimed         engine    hash        heard, since, run, born, counted, most, mending, groups
-- foreign     hash    late owner -> how many rows of it an endpoint cannot stop, by endpoint, as JSON
-- grouped     sorted  "hash of group\0id", by name      parked      sorted set  id of those whose group is full
-- names       hash    name -> the worker that has it, with the facts about its process, as JSON
-- standing    sorted  "hash of group\0turn id" of those in the queue, by name
--
-- Older workers write only rows without an owner into "unresolved"; their other rows are added by mend,
-- or when they are claimed.
local ROWS, OWNED, HELD_KEYS, EXPIRING, LINE, TICKETS, WORKERS, CLAIMED, CLAIMED_AT, ENGINE, FOREIGN, NAMES,
  GROUPED, PARKED, STANDING =
  unpack(KEYS)
-- If a value of "claimed" begins with ".", the session is over, or its start was called off, by the
-- worker whose name follows. That worker reports the end.
local CHANNEL, REMEMBERED, MOST_CLAIMED, MOST_PASSED, PORTION, NOBODY, OVER =
  ARGV[2], 86400, 500, 2000, 500, '', '.'
-- Claims leave rows of a newer version alone. FAR is later than any time in a row.
local ROW_VERSION, FAR = 1, 1e12

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
-- The state of this call: what hear returned, by worker, and the number of slots that became free.
local known_to, freed = {}, 0

local function of(index, name, skip, most)
  local ids, from, to = {}, '[' .. name .. '\0', '(' .. name .. '\1'
  local found = redis.call('ZRANGEBYLEX', index, from, to, 'LIMIT', skip or 0, most or -1)
  for _, member in ipairs(found) do ids[#ids + 1] = string.sub(member, #name + 2) end
  return ids
end

-- The session id is written before the row, with its length, so that renewals need not decode the row.
local function unpacked(text)
  local length, first = string.match(text, '^(%d+):()')
  if not length then return '', '' end
  return string.sub(text, first, first + length - 1), string.sub(text, first + length)
end

-- Text that is no JSON, or has a field of a wrong type, gives nil: it must not stop steps for other rows.
local KINDS = {id = 'string', key = 'string', name = 'string', owner = 'string', endpoint = 'string',
  client = 'string', session_id = 'string', resource = 'string', marker = 'string', group = 'string',
  started = 'number', expires = 'number', version = 'number', most = 'number', skipped = 'number', turn = 'string', renews = 'boolean',
  process = 'string'}
local ROW, TICKET, NAMESAKE = {'id', 'key', 'name', 'owner', 'endpoint', 'expires'}, {'key', 'owner', 'most'},
  {'owner', 'process'}

local function decoded(text, needed)
  local is_json, value = pcall(cjson.decode, text or '')
  if not is_json or type(value) ~= 'table' then return nil end
  for name, one in pairs(value) do
    local kind = KINDS[name]
    if one == cjson.null then
      value[name] = nil
    elseif kind and type(one) ~= kind or kind == 'number' and not (one > -FAR and one < FAR) then
      return nil
    end
  end
  for _, name in ipairs(needed) do
    if value[name] == nil then return nil end
  end
  return value
end

-- The text of a row; nil if it cannot be written because of an unknown field.
local function encoded(value)
  local is_json, text = pcall(cjson.encode, value)
  return is_json and text or nil
end

local function number(text) return tonumber(text) or 0 end

local function read(id)
  local text = redis.call('HGET', ROWS, id)
  local row = text and decoded(select(2, unpacked(text)), ROW)
  return row and row.id == id and row or nil
end

local function ticket_in(text)
  local ticket = decoded(text, TICKET)
  if ticket and (not ticket.turn or string.match(ticket.turn, '^%-?%d+$')) then return ticket end
end

local function ticket_of(id) return ticket_in(redis.call('HGET', TICKETS, id)) end

local function index(row)
  redis.call('ZADD', HELD_KEYS, 0, redis.sha1hex(row.key) .. '\0' .. row.id)
  redis.call('ZADD', EXPIRING, row.expires, row.id)
  redis.call('ZADD', OWNED, 0, row.owner .. '\0' .. row.id)
  if row.group then
    local added = redis.call('ZADD', GROUPED, 0, redis.sha1hex(row.group) .. '\0' .. row.id)
    if added == 1 then redis.call('HINCRBY', ENGINE, 'groups', 1) end
  end
end

local function leave_group(name, id)
  local removed = redis.call('ZREM', GROUPED, name .. '\0' .. id)
  if removed == 1 then redis.call('HINCRBY', ENGINE, 'groups', -1) end
end

local function write(row)
  local session = row.session_id or ''
  redis.call('HSET', ROWS, row.id, #session .. ':' .. session .. cjson.encode(row))
  index(row)
end

local function forget(id, row)
  row = row or read(id) or {key = '', owner = NOBODY} -- as mend writes the keys of an unreadable row
  local was_there = redis.call('HDEL', ROWS, id) == 1
  redis.call('ZREM', EXPIRING, id)
  redis.call('ZREM', HELD_KEYS, redis.sha1hex(row.key) .. '\0' .. id)
  redis.call('ZREM', OWNED, row.owner .. '\0' .. id)
  if row.group then leave_group(redis.sha1hex(row.group), id) end
  return was_there
end
"""
