-- What one caller has used, in Redis: both questions of limits.Limiter, each of them
-- atomic and one round trip. It counts as counts.go does; the same tests hold for both.
--
-- KEYS[1]  the caller's, as all that is known of a caller is in one value:
--          {day, the day's tokens, first slot, and for each slot that is not empty:
--          its distance from the first one, requests, tokens}, as MessagePack. It
--          expires when the last of it no longer counts.
-- ARGV     "take", slot's length in µs, limits of requests, tokens, day's tokens (0:
--          none), tokens to reserve. Answers what limit is over (0 none, 1 requests,
--          2 tokens, 3 the day's), when to retry, slot and day in which it was taken,
--          and of each limit what is left of it, and when all of it will be.
--       or "settle", slot's length, 1 if tokens are limited, 1 if the day's are, tokens
--          reserved, tokens used, slot and day in which they were taken. Answers 0s.
--
-- All times are µs, by this server's clock; slots count from 1970, and a slot counts
-- until all of it is 120 slots ago. What is from the future, since the clock was put
-- back, counts as of now: so nothing is forgotten that was used a moment ago, and
-- nobody waits for longer than a window, or than the day. Numbers stay below 2^53, up
-- to which Lua's are exact. A value that is not ours is as none.

local key, act, length = KEYS[1], ARGV[1], tonumber(ARGV[2])
local window, most, most_day = 120 * length, 2 ^ 45, 2 ^ 52

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local this = math.floor(now / length)
local day = math.floor(now / 86400000000)
local midnight = (day + 1) * 86400000000 - now

local function ends(slot) return (slot + 1) * length + window - now end

local n, at, requests, tokens, today = 0, {}, {}, {}, 0
local raw = redis.pcall('GET', key)
if type(raw) == 'string' then
  local ours, kept = pcall(cmsgpack.unpack, raw)
  if ours and type(kept) == 'table' and type(kept[3]) == 'number' then
    if kept[1] >= day then today = kept[2] end
    local first = kept[3]
    for i = 4, #kept, 3 do
      local slot = first + kept[i]
      if slot > this then slot = this end
      if ends(slot) > 0 then
        if at[n] == slot then
          requests[n] = requests[n] + kept[i + 1]
          tokens[n] = math.min(tokens[n] + kept[i + 2], most)
        else
          n = n + 1
          at[n], requests[n], tokens[n] = slot, kept[i + 1], kept[i + 2]
        end
      end
    end
  end
end

local function add(count, in_window, in_day)
  if at[n] ~= this then
    n = n + 1
    at[n], requests[n], tokens[n] = this, 0, 0
  end
  requests[n] = requests[n] + count
  tokens[n] = math.min(tokens[n] + in_window, most)
  today = math.min(today + in_day, most_day)
end

local function save()
  local kept, last, ttl = {day, today, 0}, 3, 0
  for i = 1, n do
    if requests[i] > 0 or tokens[i] > 0 then
      if last == 3 then kept[3] = at[i] end
      kept[last + 1], kept[last + 2], kept[last + 3] = at[i] - kept[3], requests[i], tokens[i]
      last, ttl = last + 3, ends(at[i])
    end
  end
  if today > 0 then ttl = math.max(ttl, midnight) end
  if ttl > 0 then
    redis.call('SET', key, cmsgpack.pack(kept), 'PX', math.ceil(ttl / 1000))
  else
    redis.call('DEL', key)
  end
end

if act == 'settle' then
  local in_window, in_day = tonumber(ARGV[3]), tonumber(ARGV[4])
  local more = tonumber(ARGV[6]) - tonumber(ARGV[5])
  local slot, taken_day = math.min(tonumber(ARGV[7]), this), math.min(tonumber(ARGV[8]), day)
  if more > 0 then
    add(0, more * in_window, more * in_day)
  else
    for i = 1, n do
      if at[i] == slot then tokens[i] = math.max(0, tokens[i] + more * in_window) end
    end
    if taken_day == day then today = math.max(0, today + more * in_day) end
  end
  save()
  return {0}
end

local limit_requests, limit_tokens, limit_day = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local want = tonumber(ARGV[6])

-- wait is how long it takes until no more than room is used.
local function wait(counts, room)
  local over = -room
  for i = 1, n do over = over + counts[i] end
  if over <= 0 then return 0 end
  for i = 1, n do
    over = over - counts[i]
    if over <= 0 then return ends(at[i]) end
  end
  return 0
end

local over, retry = 0, 0
local function lacks(which, after, never)
  if over ~= 0 and retry == 0 then return end -- another never has room
  if never then
    over, retry = which, 0
  elseif after > retry then
    over, retry = which, after
  end
end

if limit_day > 0 and today + want > limit_day then lacks(3, midnight, want > limit_day) end
if limit_tokens > 0 then lacks(2, wait(tokens, limit_tokens - want), want > limit_tokens) end
if limit_requests > 0 then lacks(1, wait(requests, limit_requests - 1), false) end

if over == 0 then
  add(limit_requests > 0 and 1 or 0, limit_tokens > 0 and want or 0, limit_day > 0 and want or 0)
  save()
end

local function level(counts, limit)
  local used, reset = 0, 0
  for i = 1, n do
    if counts[i] > 0 then
      used = used + counts[i]
      reset = ends(at[i])
    end
  end
  return math.max(0, limit - used), reset
end

local left_requests, reset_requests = level(requests, limit_requests)
local left_tokens, reset_tokens = level(tokens, limit_tokens)
return {
  over, retry, this, day,
  left_requests, reset_requests, left_tokens, reset_tokens,
  math.max(0, limit_day - today), today > 0 and midnight or 0,
}
