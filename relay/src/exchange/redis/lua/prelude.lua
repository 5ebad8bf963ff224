-- What every script begins with: names of keys, wake-ups, holds, the sums of the memory rule.
--
-- KEYS[1] is the boot; every other key has its prefix and with it its hash tag, so all of them are on one node.
-- ARGV[1]: the boot that the caller was seated by. ARGV[2]: now, in microseconds. ARGV[3]: the calling instance and which
-- of its connections this comes by, the latest having the highest number: 'instance:number'.
-- The table L holds the limits of the caller, each named as in rules/ and options.rs.
--
-- A role is 'h' or 'p'. A direction is named by its receiver: fields 'h>cost' and so on are of frames *to* the host.
-- A reply is a list that begins with a word: 'ok', or why not, or 'forgot' where the boot is another, or 'stale' where the
-- connection was given up: what was asked by it has been asked again, or will be.

local P, NOW = string.sub(KEYS[1], 1, -5), tonumber(ARGV[2])
local ME, BY = string.match(ARGV[3], '^(%x+):(%d+)$')
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return { 'forgot' }
end
if tonumber(redis.call('GET', P .. 'instance:' .. ME) or 0) > tonumber(BY) then return { 'stale' } end

local LEDGER, WAITING, DUE, RETIRED = P .. 'ledger', P .. 'waiting', P .. 'due', P .. 'retired'
local MINUTE = 60000000
-- Numbers of the calling instance's sockets that have to look at their seats.
local rings = {}

local function channel_of(key) return P .. 'channel:' .. key end
local function frames_of(key, to) return P .. 'frames:' .. key .. ':' .. to end
local function source_of(source) return P .. 'source:' .. source end
local function nameplate_of(digits) return P .. 'nameplate:' .. digits end
local function id_of(id) return P .. 'id:' .. id end
local function code_of(code) return P .. 'code:' .. code end
local function other(role) return role == 'h' and 'p' or 'h' end

-- Every key has an expiry; the sweep renews those of what lives.
local function keep(key) redis.call('PEXPIRE', key, L.keep) end

-- ... and a source's for as long as it uses something, or its failed joins are remembered.
local function keep_source(s)
  local used = redis.call('HMGET', s, 'channels', 'held')
  local busy = tonumber(used[1] or 0) > 0 or tonumber(used[2] or 0) > 0
  redis.call('PEXPIRE', s, busy and L.keep or L.remembered)
end

-- Whether whoever asked for a seat by then has been told to go elsewhere, and may sit there.
local function late(by)
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2]) > tonumber(by)
end

local function alive(instance) return redis.call('EXISTS', P .. 'instance:' .. instance) == 1 end

-- Wakes the socket in this seat, here or at another instance.
local function wake(c, role)
  local seat = redis.call('HMGET', c, role .. '.instance', role .. '.number')
  if not seat[1] then return end
  redis.call('HDEL', c, role .. '.idle')
  if seat[1] == ME then
    rings[#rings + 1] = tonumber(seat[2])
  elseif alive(seat[1]) then
    local stream = P .. 'wake:' .. seat[1]
    redis.call('XADD', stream, 'MAXLEN', '~', L.wakes, '*', 'n', seat[2])
    keep(stream)
  end
end

-- Why this hold is over; nil where it is good.
local function lost(c, role, epoch)
  local seat = redis.call('HMGET', c, role .. '.epoch', role .. '.first', role .. '.presence')
  if not seat[1] then
    return redis.call('EXISTS', c) == 1 and 'released' or 'over'
  end
  if seat[3] == 'left' then return 'over' end
  if seat[1] == epoch then return nil end
  return tonumber(seat[2]) <= tonumber(epoch) and 'replaced' or 'released'
end

-- Presence of the socket in a seat, nil where nobody ever sat: that of a dead instance is away.
local function presence(c, role)
  local seat = redis.call('HMGET', c, role .. '.presence', role .. '.instance')
  if not seat[1] then return nil end
  if seat[1] == 'here' and seat[2] ~= ME and not alive(seat[2]) then return 'away' end
  return seat[1]
end

-- A new epoch for a seat of this channel.
local function epoch_of(c) return redis.call('HINCRBY', c, 'serial', 1) end

-- Looks at this channel again at `at` or earlier.
local function due_by(key, at)
  redis.call('ZADD', DUE, 'LT', at, key)
  keep(DUE)
end

-- Frames worth `cost` of this payer are not queued for `to` any more.
local function free(c, to, payer, cost)
  local left = redis.call('HINCRBY', c, to .. '>cost', -cost)
  redis.call('HINCRBY', LEDGER, 'total', -cost)
  if left <= 0 then redis.call('HINCRBY', LEDGER, 'active', -1) end
  local s = source_of(payer)
  if redis.call('EXISTS', s) == 1 then redis.call('HINCRBY', s, 'held', -cost) end
end

-- Empties a direction.
local function clear(c, key, to)
  local f = frames_of(key, to)
  for _, entry in ipairs(redis.call('XRANGE', f, '-', '+')) do
    free(c, to, entry[2][4], #entry[2][2] + L.overhead)
  end
  redis.call('DEL', f)
end

-- Wakes senders that wait for memory, after some was freed. Who still does not fit waits again behind the others.
local function wake_waiting()
  for _, entry in ipairs(redis.call('LPOP', WAITING, L.woken) or {}) do
    local key, to = string.match(entry, '^(%x+):(%a)$')
    local c = channel_of(key)
    if redis.call('HDEL', c, to .. '>memory') == 1 then wake(c, other(to)) end
  end
end

-- The direction to `to` wants nothing of the rate any more.
local function stop_waiting(c, to)
  redis.call('HDEL', c, to .. '>turn')
  local v = redis.call('HMGET', c, 'first', other(to) .. '>turn')
  if v[1] and v[1] ~= other(to) then
    if v[2] then redis.call('HSET', c, 'first', other(to)) else redis.call('HDEL', c, 'first') end
  elseif not v[1] and v[2] then
    redis.call('HSET', c, 'first', other(to))
  end
end

-- When `cost` tokens of a bucket that is full at `full_at` can be drawn (rules/bucket.rs).
local function ready_at(full_at, cost, per_minute)
  if per_minute == 0 or not full_at or full_at <= NOW then return NOW end
  local span = math.min(math.floor(cost * MINUTE / per_minute), MINUTE)
  return NOW + math.max(full_at - NOW + span - MINUTE, 0)
end

-- When that bucket is full again once they were drawn.
local function drawn(full_at, cost, per_minute)
  return math.max(full_at or 0, NOW) + math.floor(cost * MINUTE / per_minute)
end

local function may_join(source)
  local full_at = tonumber(redis.call('HGET', source_of(source), 'failures'))
  return ready_at(full_at, 1, L.failed_joins) <= NOW
end

local function failed_join(source)
  if L.failed_joins == 0 then return end
  local s = source_of(source)
  local full_at = tonumber(redis.call('HGET', s, 'failures'))
  redis.call('HSET', s, 'failures', string.format('%d', drawn(full_at, 1, L.failed_joins)))
  keep_source(s)
end

-- Makes an empty channel that counts for `owner`; the error code where there may be no more.
local function open(key, owner)
  if tonumber(redis.call('HGET', LEDGER, 'channels') or 0) >= L.channels then return 'busy' end
  local s = source_of(owner)
  if L.per_source > 0 and tonumber(redis.call('HGET', s, 'channels') or 0) >= L.per_source then
    return 'too_many_channels'
  end
  redis.call('HINCRBY', s, 'channels', 1)
  redis.call('HINCRBY', LEDGER, 'channels', 1)
  redis.call('HSET', channel_of(key), 'owner', owner, 'active', ARGV[2])
  keep(s)
  keep(LEDGER)
  keep(channel_of(key))
  return nil
end

-- Puts a socket into an empty seat; returns its epoch.
local function seat(c, role, hash, source, number)
  local epoch = epoch_of(c)
  redis.call('HSET', c, role .. '.hash', hash, role .. '.first', epoch, role .. '.epoch', epoch,
    role .. '.source', source, role .. '.instance', ME, role .. '.number', number, role .. '.presence', 'here')
  return epoch
end

-- Gives the free seat of a peer to a socket: this pairing has that id. Returns its epoch.
local function pair(c, key, id, hash, source, number)
  redis.call('HSET', c, 'id', id, 'active', ARGV[2])
  redis.call('SET', id_of(id), key, 'PX', L.keep)
  due_by(key, NOW + L.idle)
  local epoch = seat(c, 'p', hash, source, number)
  wake(c, 'h')
  return epoch
end

-- Puts another socket into a seat; returns its epoch. Whether it may sit there has been judged.
local function reseat(c, role, hash, source, number)
  local epoch = epoch_of(c)
  wake(c, role)
  redis.call('HSET', c, role .. '.hash', hash, role .. '.epoch', epoch, role .. '.source', source,
    role .. '.instance', ME, role .. '.number', number, role .. '.presence', 'here')
  redis.call('HDEL', c, role .. '.idle', role .. '.told')
  stop_waiting(c, role)
  wake(c, other(role))
  return epoch
end

-- Frees a nameplate; it is not given out again soon (rules/nameplate.rs).
local function retire(digits)
  redis.call('DEL', nameplate_of(digits))
  redis.call('HINCRBY', LEDGER, 'digits' .. #digits, -1)
  redis.call('ZADD', RETIRED, NOW, digits)
  keep(RETIRED)
  redis.call('ZREMRANGEBYSCORE', RETIRED, '-inf', NOW - L.retired_for)
  redis.call('ZREMRANGEBYRANK', RETIRED, 0, -L.retired - 1)
end

-- Takes the socket out of its seat. The hold must be good.
local function vacate(c, key, role, how)
  redis.call('HSET', c, role .. '.presence', how, role .. '.absent', ARGV[2])
  redis.call('HDEL', c, other(role) .. '>waits')
  if how == 'left' then clear(c, key, role) end
  stop_waiting(c, role)
  wake(c, other(role))
end

-- Forgets a channel.
local function finish(key)
  local c = channel_of(key)
  redis.call('ZREM', DUE, key)
  local v = redis.call('HMGET', c, 'owner', 'nameplate', 'id', 'recreated', 'code')
  if not v[1] then return end
  clear(c, key, 'h')
  clear(c, key, 'p')
  if v[2] then retire(v[2]) end
  if v[5] then redis.call('DEL', code_of(v[5])) end
  if v[3] then
    redis.call('DEL', id_of(v[3]))
    if v[4] then redis.call('SET', P .. 'tombstone:' .. redis.sha1hex(v[3]), '', 'PX', L.tombstone) end
  end
  local s = source_of(v[1])
  if redis.call('EXISTS', s) == 1 then redis.call('HINCRBY', s, 'channels', -1) end
  redis.call('HINCRBY', LEDGER, 'channels', -1)
  wake(c, 'h')
  wake(c, 'p')
  redis.call('DEL', c)
end
