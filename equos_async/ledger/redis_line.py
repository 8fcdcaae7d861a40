"""The part of the Redis script for the queue: turns, as in SQLite."""

from typing import Final

LINE: Final = r"""
-- The queue is read by its scores. Groups take turns: in each round every waiting group has one
-- turn, so a group's next row is one round later. A group that was not waiting begins at the end of
-- the current round. Renewals come before all other starts.
--
-- When a row leaves without having used its turn, its group keeps the turn: each row behind it
-- moves one round forward. It would take long to write all of them, so only the next one moves; it
-- counts how many turns were skipped before it, and passes that on. So a group's first row has its
-- exact turn. Turns are texts, because JSON has no numbers of that length. ROUND limits the groups
-- of a round.
local ROUND, RENEWALS = 2 ^ 20, -2 ^ 52

local function standing_of(ticket)
  return (ticket.renews and 'r' or 'n') .. (ticket.group and redis.sha1hex(ticket.group) or '')
end

local function score_of(ticket)
  local turn = tonumber(ticket.turn) - (ticket.skipped or 0) * ROUND
  return string.format('%.0f', ticket.renews and turn + RENEWALS or turn)
end

-- The first row of a group between two names, with its ticket; names that older workers left are
-- removed.
local function standing(command, from, to, length)
  while true do
    local found = redis.call(command, STANDING, from, to, 'LIMIT', 0, 1)[1]
    local id = found and string.sub(found, length + 18)
    local ticket = id and ticket_of(id)
    if not found or ticket and ticket.turn then return id, ticket end
    redis.call('ZREM', STANDING, found)
  end
end

local function set_ticket(id, ticket)
  local text = encoded(ticket)
  if not text then -- a field that is not known here cannot be written
    local known = {}
    for _, name in ipairs({'key', 'owner', 'most', 'group', 'renews', 'turn', 'skipped'}) do
      known[name] = ticket[name]
    end
    text = cjson.encode(known)
  end
  redis.call('HSET', TICKETS, id, text)
  redis.call('ZADD', HELD_KEYS, 0, redis.sha1hex(ticket.key) .. '\0' .. id)
  redis.call('ZADD', OWNED, 0, ticket.owner .. '\0' .. id)
end

-- Leave the queue; unless the row is placed, the next of its group gets its turn.
local function leave_line(id, is_placed)
  local ticket = ticket_of(id)
  redis.call('HDEL', TICKETS, id)
  redis.call('ZREM', LINE, id)
  redis.call('ZREM', PARKED, id)
  if not ticket then return end
  redis.call('ZREM', HELD_KEYS, redis.sha1hex(ticket.key) .. '\0' .. id)
  redis.call('ZREM', OWNED, ticket.owner .. '\0' .. id)
  if not ticket.turn then return end -- it was parked, or is an older worker's
  local name = standing_of(ticket)
  local member = name .. '\0' .. ticket.turn .. id
  redis.call('ZREM', STANDING, member)
  local skipped = (ticket.skipped or 0) + (is_placed and 0 or 1)
  if skipped == 0 then return end
  local next_id, following = standing('ZRANGEBYLEX', '[' .. member, '(' .. name .. '\1', #name)
  if not next_id then return end
  following.skipped = (following.skipped or 0) + skipped
  set_ticket(next_id, following)
  redis.call('ZADD', LINE, score_of(following), next_id)
  -- It may have overtaken rows that know of their slots.
  if redis.call('HLEN', ROWS) < following.most then
    redis.call('PUBLISH', CHANNEL .. following.owner, next_id)
  end
end

-- The turn of a row that joins.
local function turn_of(ticket)
  local name = standing_of(ticket)
  local _, last = standing('ZREVRANGEBYLEX', '(' .. name .. '\1', '[' .. name .. '\0', #name)
  if last then return tonumber(last.turn) + ROUND end
  local low, high = '0', '+inf'
  if ticket.renews then low, high = '-inf', '(0' end
  local first = redis.call('ZRANGEBYSCORE', LINE, low, high, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if not first then return 0 end
  local before = string.format('(%.0f', tonumber(first) + ROUND)
  local latest = redis.call('ZREVRANGEBYSCORE', LINE, before, first, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return tonumber(latest) + 1 - (ticket.renews and RENEWALS or 0)
end

local function stand(id, ticket)
  redis.call('ZADD', LINE, score_of(ticket), id)
  redis.call('ZADD', STANDING, 0, standing_of(ticket) .. '\0' .. ticket.turn .. id)
end

-- Join the queue, behind the others of the group; a row in the queue keeps its position.
local function join(id, ticket)
  local before = ticket_of(id)
  if before and before.turn then
    if before.most ~= ticket.most then
      before.most = ticket.most
      set_ticket(id, before)
    end
    if not redis.call('ZSCORE', LINE, id) then stand(id, before) end -- the queue was evicted
    return
  end
  if before then leave_line(id) end
  ticket.turn = string.format('%016.0f', turn_of(ticket))
  set_ticket(id, ticket)
  stand(id, ticket)
end

-- Keep the key of a row, without a turn.
local function park(id, ticket)
  local before = ticket_of(id)
  if before and before.turn then freed = freed + 1 end -- another row gets its turn
  if before then leave_line(id) end
  ticket.most = 0
  set_ticket(id, ticket)
  redis.call('ZADD', PARKED, 0, id)
end

-- Go through the queue, and find the rows that have a slot: a row has one if there are fewer placed
-- rows, and rows with a slot before it, than its limit. A row at its own limit delays no other row.
local function walk(visit, least)
  local taken, first = redis.call('HLEN', ROWS), 0
  local most = math.max(tonumber(redis.call('HGET', ENGINE, 'most')) or math.huge, least or 0)
  while taken < most and first < MOST_PASSED do
    local last = first + math.max(8, math.min(most - taken, PORTION)) - 1
    local ids = redis.call('ZRANGE', LINE, first, last)
    if #ids == 0 then return taken end
    for place, text in ipairs(redis.call('HMGET', TICKETS, unpack(ids))) do
      local ticket = ticket_in(text)
      if ticket and taken < ticket.most then
        if visit(ids[place], ticket, taken) then return taken end
        taken = taken + 1
      end
    end
    first = last + 1
  end
  return math.max(taken, most)
end

-- Take a slot for a row, if one is left after all rows before it; then it leaves the queue.
local function take(id, ticket)
  local live, most = redis.call('HLEN', ROWS), ticket.most
  if live >= most then return false end
  if redis.call('ZCARD', LINE) > 0 then
    join(id, ticket)
    local ahead = redis.call('ZRANK', LINE, id)
    if live + ahead >= most and walk(function(one) return one == id end, most) >= most then
      return false
    end
  end
  leave_line(id, true)
  return true
end

-- Call the rows that got a slot, all rows that have one, or all rows of one worker.
local function call(free, worker)
  walk(function(id, ticket, taken)
    local is_new = not free or taken + free >= ticket.most
    if is_new and (not worker or ticket.owner == worker) then
      redis.call('PUBLISH', CHANNEL .. ticket.owner, id)
    end
  end)
end
"""
