-- Either seat under a code that the relay was told.
-- ARGV 4: the hash of the code. 5: the role. 6: the seat's hash. 7: the source. 8: the socket's number. 9: an id, should
-- this be a pairing. 10: a key, should this be a new channel. 11: until when the socket waits.
-- Replies ok, rings, epoch, key.
local code, role, hash, source, number, id, fresh = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local key = redis.call('GET', code_of(code))
local c = key and channel_of(key)
local known = c and redis.call('HMGET', c, role .. '.hash', role .. '.epoch', role .. '.source', 'owner')
if known and not known[4] then key, c, known = nil, nil, nil end
-- A reply that was lost.
if known and known[1] == hash then return { 'ok', rings, tonumber(known[2]), key } end
if late(ARGV[11]) then return { 'late' } end
if not may_join(source) then return { 'too_many_failed_joins' } end

if not known and role == 'h' then
  local why = open(fresh, source)
  if why then return { why } end
  redis.call('SET', code_of(code), fresh, 'PX', L.keep)
  redis.call('HSET', channel_of(fresh), 'code', code, 'by_code', 1)
  due_by(fresh, NOW + L.unclaimed)
  return { 'ok', rings, seat(channel_of(fresh), 'h', hash, source, number), fresh }
end
if known and not known[1] then return { 'ok', rings, pair(c, key, id, hash, source, number), key } end

-- Whoever knows the code takes a seat whose socket is away, or whose socket is its own: it may be dead, and the relay
-- does not know yet.
local there = known and presence(c, role)
if there == 'away' or (there == 'here' and known[3] == source) then
  -- Its client knows nothing: it is told again.
  redis.call('HDEL', c, role .. '.paired')
  return { 'ok', rings, reseat(c, role, hash, source, number), key }
end
failed_join(source)
return { 'unable_to_join' }
