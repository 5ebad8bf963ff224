-- A new channel with a free nameplate.
-- ARGV 4: its key. 5: the seat's hash. 6: the source. 7: the socket's number. 8: until when it waits. 9…: random
-- numbers below 2^52.
-- Replies ok, rings, epoch, nameplate. The same key again (a reply that was lost) is the same channel.
local key, hash, source, number = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local c = channel_of(key)
local known = redis.call('HMGET', c, 'h.epoch', 'nameplate')
if known[1] then return { 'ok', rings, tonumber(known[1]), known[2] } end
if late(ARGV[8]) then return { 'late' } end

local digits = 4
while digits < 9 and tonumber(redis.call('HGET', LEDGER, 'digits' .. digits) or 0) * 10 > 9 * 10 ^ (digits - 1) do
  digits = digits + 1
end
local nameplate
for i = 9, #ARGV do
  local low = 10 ^ (digits - 1)
  local draw = string.format('%d', low + tonumber(ARGV[i]) % (9 * low))
  if redis.call('EXISTS', nameplate_of(draw)) == 0 and not redis.call('ZSCORE', RETIRED, draw) then
    nameplate = draw
    break
  end
end
if not nameplate then return { 'busy' } end
local why = open(key, source)
if why then return { why } end
redis.call('SET', nameplate_of(nameplate), key, 'PX', L.keep)
redis.call('HINCRBY', LEDGER, 'digits' .. digits, 1)
redis.call('HSET', c, 'nameplate', nameplate)
due_by(key, NOW + L.unclaimed)
return { 'ok', rings, seat(c, 'h', hash, source, number), nameplate }
