-- An instance comes, or says that it is still there. KEYS[1]: the boot. ARGV 1: a boot, should this store have none.
-- 2: its salt. 3: the run of the Redis process. 4: now, in microseconds. 5: the instance. 6: how long its word is good for,
-- in milliseconds. 7: how long keys are kept, in milliseconds. 8: which of its connections this is. Replies the boot and
-- the salt.
--
-- A Redis that was started again may have forgotten the latest of what it knew: that is another boot, with the same
-- channels, and every seat has to be taken back.
local known = redis.call('HMGET', KEYS[1], 'id', 'salt', 'run')
if known[1] ~= false and known[3] == ARGV[3] then
  ARGV[1], ARGV[2] = known[1], known[2]
else
  ARGV[2] = known[2] or ARGV[2]
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'salt', ARGV[2], 'run', ARGV[3], 'start', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local word = string.sub(KEYS[1], 1, -5) .. 'instance:' .. ARGV[5]
local latest = math.max(tonumber(redis.call('GET', word) or 0), tonumber(ARGV[8]))
redis.call('SET', word, string.format('%d', latest), 'PX', ARGV[6])
return { ARGV[1], ARGV[2] }
