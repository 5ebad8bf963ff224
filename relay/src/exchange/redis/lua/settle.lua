-- Forgets frames that the socket in this seat has written: from ARGV[from] on, serial, payer and cost of each. What is
-- not there any more was forgotten before (a reply that was lost). Tells those who wait for room.
local function settle(c, key, role, from)
  local gone, f = 0, frames_of(key, role)
  for i = from, #ARGV - 2, 3 do
    if redis.call('XDEL', f, ARGV[i] .. '-0') == 1 then
      free(c, role, ARGV[i + 1], tonumber(ARGV[i + 2]))
      gone = gone + 1
    end
  end
  if gone == 0 then return end
  redis.call('HSET', c, 'active', ARGV[2])
  if redis.call('HDEL', c, role .. '>waits') == 1 then wake(c, other(role)) end
  wake_waiting()
end
