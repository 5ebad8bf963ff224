-- The host undoes the pairing. ARGV 4: the key. 5: the role. 6: the epoch. 7: the number of this question in that epoch.
-- Replies ok, rings; or 'nothing' where there is no nameplate and no code to go back to.
local key, role, epoch, turn = ARGV[4], ARGV[5], ARGV[6], ARGV[6] .. ':' .. ARGV[7]
local c = channel_of(key)
local why = lost(c, role, epoch)
if why then return { why } end
local v = redis.call('HMGET', c, 'nameplate', 'id', 'p.source', 'code', 'h.undone')
if role ~= 'h' or not (v[1] or v[4]) then return { 'nothing', rings } end
-- A reply that was lost: who came since is not whom it was about.
if v[5] == turn then return { 'ok', rings } end
clear(c, key, 'h')
clear(c, key, 'p')
if v[2] then redis.call('DEL', id_of(v[2])) end
if v[3] then
  wake(c, 'p')
  failed_join(v[3])
end
for _, field in ipairs(redis.call('HKEYS', c)) do
  local seat = string.sub(field, 1, 2)
  -- The serials of frames and epochs go on: a hold of before is known by them.
  if seat == 'p.' or (string.find(field, '>', 1, true) and not string.find(field, '>serial', 1, true)) then
    redis.call('HDEL', c, field)
  end
end
redis.call('HDEL', c, 'id', 'messages', 'bytes', 'first', 'scared', 'delayed', 'h.paired', 'h.told', 'h.delayed')
redis.call('HSET', c, 'active', ARGV[2], 'h.undone', turn)
due_by(key, NOW + L.unclaimed)
wake_waiting()
return { 'ok', rings }
