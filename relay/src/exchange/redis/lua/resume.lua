-- A seat taken back.
-- ARGV 4: the channel's id, or empty. 5: the nameplate, or empty. 6: the role. 7: the claimant's boot. 8: the seat's
-- hash. 9: the source. 10: the socket's number. 11: a key, should the channel have to be made again.
-- 12: until when the socket waits. Replies ok, rings, epoch, key. Seats are compared as hashes of what the claimant sent:
-- the time that this takes tells nothing of the seat.
local id, nameplate, role, boot = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local hash, source, number, fresh = ARGV[8], ARGV[9], ARGV[10], ARGV[11]

local function may_recreate()
  return boot ~= ARGV[1] and NOW - tonumber(redis.call('HGET', KEYS[1], 'start')) < L.idle
end

local key
if id ~= '' then key = redis.call('GET', id_of(id)) else key = redis.call('GET', nameplate_of(nameplate)) end
if key then
  local v = redis.call('HMGET', channel_of(key), role .. '.epoch', role .. '.hash', role .. '.instance', role .. '.number')
  -- A reply that was lost.
  if v[2] == hash and v[3] == ME and v[4] == number then return { 'ok', rings, tonumber(v[1]), key } end
end
if late(ARGV[12]) then return { 'late' } end

local function retake(key)
  local c = channel_of(key)
  local v = redis.call('HMGET', c, role .. '.presence', role .. '.hash', 'owner')
  if not v[3] or not v[1] or v[1] == 'left' or (v[2] and v[2] ~= hash) then return nil end
  return { 'ok', rings, reseat(c, role, hash, source, number), key }
end

-- A seat that is somebody else's, or was left, or a nameplate that nobody has: that counts like a failed join.
local function wrong_seat(code)
  if not may_join(source) then return { 'too_many_failed_joins' } end
  failed_join(source)
  return { code }
end

if id ~= '' then
  if not key then
    if not may_recreate() or redis.call('EXISTS', P .. 'tombstone:' .. redis.sha1hex(id)) == 1 then
      return { 'unable_to_resume' }
    end
    key = fresh
    local why = open(key, source)
    if why then return { why } end
    redis.call('SET', id_of(id), key, 'PX', L.keep)
    local c = channel_of(key)
    redis.call('HSET', c, 'id', id, 'recreated', 1)
    for _, r in ipairs({ 'h', 'p' }) do
      redis.call('HSET', c, r .. '.first', 0, r .. '.epoch', 0, r .. '.source', source, r .. '.presence', 'away',
        r .. '.absent', ARGV[2], r .. '.paired', 1)
    end
    due_by(key, NOW + L.idle)
  end
  return retake(key) or wrong_seat('unable_to_resume')
end

if key then
  local again = retake(key)
  if again then redis.call('HDEL', channel_of(key), 'h.paired') end
  return again or wrong_seat('nameplate_lost')
end
if not may_recreate() then return wrong_seat('nameplate_lost') end
local why = open(fresh, source)
if why then return { why } end
redis.call('SET', nameplate_of(nameplate), fresh, 'PX', L.keep)
redis.call('HINCRBY', LEDGER, 'digits' .. #nameplate, 1)
redis.call('HSET', channel_of(fresh), 'nameplate', nameplate)
due_by(fresh, NOW + L.unclaimed)
return { 'ok', rings, seat(channel_of(fresh), 'h', hash, source, number), fresh }
