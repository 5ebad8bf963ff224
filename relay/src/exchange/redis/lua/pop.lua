-- What a socket has to write. ARGV 4: the key. 5: its role. 6: its epoch. 7: the serial of the last frame that it was
-- given. 8: the longest frame that this connection carries. 9: the number of this question in that epoch. 10…: serial,
-- payer and cost of each frame that it has written.
-- Replies ok, rings, statuses, frames (serial, payer and bytes of each), when to ask again (0: woken), and whether the
-- next frame is too long for this connection: then nothing else is told.
local key, role, epoch, after, longest = ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local turn = epoch .. ':' .. ARGV[9] .. ' '
local c, to, f = channel_of(key), other(role), frames_of(key, role)
local why = lost(c, role, epoch)
if why then return { why } end
settle(c, key, role, 10)

-- Whether a frame of `len` bytes may go now: 'now'; 'turn' where the other direction is first; else when
-- (rules/bucket.rs).
local function draw(len)
  if L.messages == 0 and L.bytes == 0 then return 'now' end
  local v = redis.call('HMGET', c, 'messages', 'bytes', role .. '>small', 'first')
  local messages, bytes, small = tonumber(v[1]), tonumber(v[2]), tonumber(v[3])
  local function set(field, full_at, cost, per_minute)
    if per_minute > 0 then redis.call('HSET', c, field, string.format('%d', drawn(full_at, cost, per_minute))) end
  end
  if len <= L.small_frame and ready_at(small, 1, L.small) <= NOW then
    set(role .. '>small', small, 1, L.small)
    set('bytes', bytes, len, L.bytes)
    stop_waiting(c, role)
    return 'now'
  end
  if v[4] == to then
    redis.call('HSET', c, role .. '>turn', 1)
    return 'turn'
  end
  local at = math.max(ready_at(messages, 1, L.messages), ready_at(bytes, len, L.bytes))
  if at > NOW then
    redis.call('HSET', c, role .. '>turn', 1, 'first', role)
    return at
  end
  set('messages', messages, 1, L.messages)
  set('bytes', bytes, len, L.bytes)
  stop_waiting(c, role)
  return 'now'
end

local v = redis.call('HMGET', c, 'id', 'delayed', role .. '.paired', role .. '.told', role .. '.delayed', role .. '>cost',
  to .. '.delayed', to .. '>turn', 'by_code', role .. '.said')
local id, delayed = v[1], v[2]
local statuses, frames, again = {}, {}, 0
if id and tonumber(v[6] or 0) > 0 then
  local bytes, count = 0, 0
  local most = v[9] and L.pop_frames_by_code or L.pop_frames
  while count < most do
    local entry = redis.call('XRANGE', f, '(' .. after .. '-0', '+', 'COUNT', 1)[1]
    if not entry then break end
    local frame, payer = entry[2][2], entry[2][4]
    if bytes > 0 and bytes + #frame > L.pop_bytes then break end
    if #frame > longest then
      if count == 0 then return { 'ok', rings, {}, {}, 0, 1 } end
      break
    end
    local may = draw(#frame)
    if may ~= 'now' then
      if may ~= 'turn' then
        delayed = '1'
        redis.call('HSET', c, 'delayed', 1)
        if count == 0 then again = may end
      end
      break
    end
    after = string.match(entry[1], '^%d+')
    bytes, count = bytes + #frame, count + 1
    frames[#frames + 1] = tonumber(after)
    frames[#frames + 1] = payer
    frames[#frames + 1] = frame
    if bytes >= L.pop_bytes then break end
  end
  if count > 0 and v[8] then wake(c, to) end
  if delayed and not v[7] then wake(c, to) end
end

-- What was said in a reply that was lost is said again.
if v[10] and string.sub(v[10], 1, #turn) == turn then
  for status in string.gmatch(string.sub(v[10], #turn + 1), '%S+') do statuses[#statuses + 1] = status end
end
local there = presence(c, to)
if there then
  if id and not v[3] then
    redis.call('HSET', c, role .. '.paired', 1)
    statuses[#statuses + 1] = 'paired:' .. id
  end
  if delayed and not v[5] then
    redis.call('HSET', c, role .. '.delayed', 1)
    statuses[#statuses + 1] = 'throttled'
  end
  local told = v[4] or 'here'
  local nothing_left = #frames == 0 and tonumber(redis.call('HGET', c, role .. '>cost') or 0) <= 0
  local event = (there == 'here' and told == 'away' and 'peer_back')
    or (there == 'away' and told == 'here' and 'peer_away')
    -- Said last: after it no frame comes any more.
    or (there == 'left' and told ~= 'left' and nothing_left and 'peer_left')
  if event then
    redis.call('HSET', c, role .. '.told', there)
    statuses[#statuses + 1] = event
  end
end
if #frames == 0 then redis.call('HSET', c, role .. '.idle', 1) else redis.call('HDEL', c, role .. '.idle') end
if #statuses > 0 then redis.call('HSET', c, role .. '.said', turn .. table.concat(statuses, ' ')) end
return { 'ok', rings, statuses, frames, again, 0 }
