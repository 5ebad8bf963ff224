-- Forgets channels that are over, renews the expiry of those that are not. ARGV 4: how many to look at. Replies ok, rings,
-- how many it looked at, how many channels there are, and what they hold in bytes.
local seen = redis.call('ZRANGEBYSCORE', DUE, '-inf', NOW, 'LIMIT', 0, tonumber(ARGV[4]))
for _, key in ipairs(seen) do
  local c = channel_of(key)
  local v = redis.call('HMGET', c, 'owner', 'id', 'active', 'h.absent', 'nameplate', 'code', 'h.source', 'p.source')
  local at
  if not v[1] then
    at = 0
  elseif v[2] then
    at = tonumber(v[3]) + L.idle
  elseif presence(c, 'h') == 'here' then
    at = NOW + L.unclaimed
  else
    -- Its instance may have died without a word.
    if redis.call('HGET', c, 'h.presence') == 'here' then
      redis.call('HSET', c, 'h.presence', 'away', 'h.absent', ARGV[2])
      v[4] = ARGV[2]
    end
    at = tonumber(v[4] or v[3]) + L.unclaimed
  end
  if at <= NOW then
    finish(key)
  else
    redis.call('ZADD', DUE, at, key)
    keep(c)
    keep(frames_of(key, 'h'))
    keep(frames_of(key, 'p'))
    keep(source_of(v[1]))
    -- They hold memory as long as their frames wait, and may have no channel of their own.
    if v[7] then keep_source(source_of(v[7])) end
    if v[8] then keep_source(source_of(v[8])) end
    if v[2] then keep(id_of(v[2])) end
    if v[5] then keep(nameplate_of(v[5])) end
    if v[6] then keep(code_of(v[6])) end
  end
end
if #seen > 0 then
  keep(DUE)
  keep(LEDGER)
end
wake_waiting()
local sums = redis.call('HMGET', LEDGER, 'channels', 'total')
return { 'ok', rings, #seen, tonumber(sums[1] or 0), tonumber(sums[2] or 0) }
