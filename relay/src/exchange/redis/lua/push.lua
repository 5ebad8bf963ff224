-- A frame for the other end. ARGV 4: the key. 5: the sender's role. 6: its epoch. 7: the number of this push in that
-- epoch. 8: the frame. Replies ok, rings; or full, rings; or unpaired.
local key, role, epoch, turn, frame = ARGV[4], ARGV[5], ARGV[6], ARGV[6] .. ':' .. ARGV[7], ARGV[8]
local c = channel_of(key)
local why = lost(c, role, epoch)
if why then return { why } end
local to = other(role)
local there = presence(c, to)
local v = redis.call('HMGET', c, to .. '>cost', to .. '>turn_taken', role .. '.source', to .. '.idle', to .. '>waits',
  'by_code')
-- Under a code the host does not wait for its peer.
if not there and not v[6] then return { 'unpaired' } end
-- Nobody will ever come for it; or it is there already (a reply that was lost).
if there == 'left' or v[2] == turn then return { 'ok', rings } end

-- The memory rule (rules/room.rs).
local queued, payer, cost = tonumber(v[1] or 0), v[3], #frame + L.overhead
local sums = redis.call('HMGET', LEDGER, 'total', 'active')
local total, active = tonumber(sums[1] or 0), tonumber(sums[2] or 0)
local half = math.floor(L.memory / 2)
local bound = v[6] and L.code_queue or L.queue
if total > half then bound = math.min(bound, math.floor(half / math.max(active, 1))) end
local full = queued > 0 and queued + cost > bound
local memory = false
if not full then
  local straight = queued == 0 and there == 'here'
  local budget = straight and L.memory or L.memory - math.floor(L.memory / L.straight_parts)
  local held = tonumber(redis.call('HGET', source_of(payer), 'held') or 0)
  memory = total + cost > budget or held + cost > L.share
end
if full or memory then
  redis.call('HSET', c, to .. '>waits', 1)
  if memory and redis.call('HSET', c, to .. '>memory', 1) == 1 then
    redis.call('RPUSH', WAITING, key .. ':' .. to)
    keep(WAITING)
  end
  return { 'full', rings }
end

local f = frames_of(key, to)
local serial = redis.call('HINCRBY', c, to .. '>serial', 1)
redis.call('XADD', f, serial .. '-0', 'f', frame, 's', payer)
redis.call('HSET', c, 'active', ARGV[2], to .. '>cost', queued + cost, to .. '>turn_taken', turn)
redis.call('HINCRBY', LEDGER, 'total', cost)
if redis.call('HINCRBY', source_of(payer), 'held', cost) == cost then keep(source_of(payer)) end
if queued == 0 then
  redis.call('HINCRBY', LEDGER, 'active', 1)
  keep(f)
  keep(c)
end
if v[5] then redis.call('HDEL', c, to .. '>waits') end
if v[4] then wake(c, to) end
return { 'ok', rings }
