-- The peer's seat at a nameplate.
-- ARGV 4: the nameplate, empty where it is none. 5: the seat's hash. 6: the source. 7: the socket's number. 8: an id for
-- the pairing. 9: until when the socket waits. Replies ok, rings, epoch, key.
local nameplate, hash, source, number, id = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local key = nameplate ~= '' and redis.call('GET', nameplate_of(nameplate))
local c = key and channel_of(key)
local known = c and redis.call('HMGET', c, 'p.hash', 'p.epoch', 'owner')
-- A reply that was lost.
if known and known[1] == hash then return { 'ok', rings, tonumber(known[2]), key } end
if late(ARGV[9]) then return { 'late' } end
if not may_join(source) then return { 'too_many_failed_joins' } end
if not known or known[1] or not known[3] then
  failed_join(source)
  -- Of a third party only the operator's counters know.
  return { known and known[1] and 'crowded' or 'unable_to_join' }
end
return { 'ok', rings, pair(c, key, id, hash, source, number), key }
