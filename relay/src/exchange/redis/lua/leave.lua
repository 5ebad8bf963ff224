-- A socket is gone. ARGV 4: the key. 5: the role. 6: the epoch. 7: 'away' or 'left'. 8: 'scary' or empty.
-- 9…: serial, payer and cost of each frame that it has written. Replies ok, rings.
local key, role, epoch, how, scary = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8] == 'scary'
local c = channel_of(key)
local why = lost(c, role, epoch)
if why then return { why } end
settle(c, key, role, 9)
if how == 'left' then
  local v = redis.call('HMGET', c, 'p.source', 'scared', 'nameplate', 'code')
  if scary and not v[2] then
    redis.call('HSET', c, 'scared', 1)
    if v[1] then failed_join(v[1]) end
  end
  if role == 'h' and v[3] then
    redis.call('HDEL', c, 'nameplate')
    retire(v[3])
  end
  if role == 'h' and v[4] then
    redis.call('HDEL', c, 'code')
    redis.call('DEL', code_of(v[4]))
  end
end
vacate(c, key, role, how)
local there = redis.call('HMGET', c, 'h.presence', 'p.presence', 'id')
if how == 'left' and (not there[1] or there[1] == 'left') and (not there[2] or there[2] == 'left') then
  finish(key)
elseif not there[3] then
  due_by(key, NOW + L.unclaimed)
end
wake_waiting()
return { 'ok', rings }
