"""The part of the Redis script for the queue: turns, as in SQLite."""

from typing import Final

LINE: Final = r"""
-- The line is read by its scores. Groups take turns: of each group that waits one has its turn in a
-- round, so the next of a group is a round behind the one before it. A group that was not waiting
-- begins behind all others, in the same round. Renewals stand before all newcomers.
--
-- Who leaves without having used its turn leaves it to its group: those behind it come earlier by a
-- round each. To write all of them would take long, so only the next one does; it counts how many
-- turns were skipped before it, and passes that on. So the first of a group has its exact turn.
-- Turns are texts, for JSON has no numbers of that length; so many groups may be in one round.
local ROUND, RENEWALS = 2 ^ 20, -2 ^ 52

local function standing_of(ticket)
  return (ticket.renews and 'r' or 'n') .. (ticket.group and redis.sha1hex(ticket.group) or '')
end

local function score_of(ticket)
  local turn = tonumber(ticket.turn) - (ticket.skipped or 0) * ROUND
  return string.format('%.0f', ticket.renews and turn + RENEWALS or turn)
end

-- The first of a group between two names, with its ticket; older workers leave names behind.
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
  redis.call('HSET', TICKETS, id, cjson.encode(ticket))
  redis.call('ZADD', HELD_KEYS, 0, redis.sha1hex(ticket.key) .. '\0' .. id)
  redis.call('ZADD', OWNED, 0, ticket.owner .. '\0' .. id)
end

-- Leave the line; unless it is placed, the next of its group has its turn.
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
  -- It may have passed those that know of their places.
  if redis.call('HLEN', ROWS) < following.most then
    redis.call('PUBLISH', CHANNEL .. following.owner, next_id)
  end
end

-- The turn of one that joins.
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

-- Stand in the line, behind the others of the group; who stands there stays.
local function join(id, ticket)
  local before = ticket_of(id)
  if before and before.turn then
    if before.most ~= ticket.most then
      before.most = ticket.most
      set_ticket(id, before)
    end
    if not redis.call('ZSCORE', LINE, id) then stand(id, before) end -- the line was evicted
    return
  end
  if before then leave_line(id) end
  ticket.turn = string.format('%016.0f', turn_of(ticket))
  set_ticket(id, ticket)
  stand(id, ticket)
end

-- Have a key, but no turn.
local function park(id, ticket)
  local before = ticket_of(id)
  if before and before.turn then freed = freed + 1 end -- its turn is another's
  if before then leave_line(id) end
  ticket.most = 0
  set_ticket(id, ticket)
  redis.call('ZADD', PARKED, 0, id)
end

-- Walk the line, and see who has a place: whoever finds fewer than its limit before it, be they
-- rows or others that have places. One whose own limit is reached stands in nobody's way.
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

-- Whether a slot is free for a row, after all before it; then it leaves the line.
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

-- Call those who have a place since some became free, or all who have one, or all of one worker's.
local function call(free, worker)
  walk(function(id, ticket, taken)
    local is_new = not free or taken + free >= ticket.most
    if is_new and (not worker or ticket.owner == worker) then
      redis.call('PUBLISH', CHANNEL .. ticket.owner, id)
    end
  end)
end
"""
