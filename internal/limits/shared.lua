-- What one caller has used, in Redis: both questions of limits.Limiter, each of them
-- atomic and one round trip. It counts as counts.go does; the same tests hold for both.
--
-- KEYS[1]  the caller's, as all that is known of a caller is in one value: a head (how
--          much is used in the window and on the day, and in which slots something was
--          used last), and 16 bytes for each slot in which something was used, by time.
--          It is taken apart no further than needed: to read and to write all of it is
--          what would cost most. It expires when the last of it no longer counts.
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

local head, head_size, name = '>c4I6I8I6I8I6I6', 44, 'VGL1'
local entry, size = '>I6I4I6', 16

local requests, tokens, today, last_requests, last_tokens, slots = 0, 0, 0, 0, 0, ''

-- get gives slot, requests and tokens of the i-th slot, from 0.
local function get(i) return struct.unpack(entry, slots, i * size + 1) end

local function count() return #slots / size end

-- add counts in the slot of now, which is the last one.
local function add(more_requests, more_tokens)
  local used_requests, used_tokens = 0, 0
  if slots ~= '' then
    local slot, r, t = get(count() - 1)
    if slot == this then
      used_requests, used_tokens, slots = r, t, slots:sub(1, -size - 1)
    end
  end
  local sum = math.min(used_tokens + more_tokens, most)
  slots = slots .. struct.pack(entry, this, used_requests + more_requests, sum)
  requests, tokens = requests + more_requests, tokens + sum - used_tokens
  if more_requests > 0 then last_requests = this end
  if more_tokens > 0 then last_tokens = this end
end

local raw = redis.pcall('GET', key)
if type(raw) == 'string' and raw:sub(1, 4) == name and #raw >= head_size and (#raw - head_size) % size == 0 then
  local _, was
  _, was, today, requests, tokens, last_requests, last_tokens = struct.unpack(head, raw)
  slots = raw:sub(head_size + 1)
  if was < day then today = 0 end

  local future_requests, future_tokens = 0, 0
  while slots ~= '' do
    local slot, r, t = get(count() - 1)
    if slot <= this then break end
    slots = slots:sub(1, -size - 1)
    requests, tokens = requests - r, tokens - t
    future_requests, future_tokens = future_requests + r, future_tokens + t
  end
  if future_requests + future_tokens > 0 then add(future_requests, future_tokens) end
  last_requests, last_tokens = math.min(last_requests, this), math.min(last_tokens, this)

  local gone = 0
  while gone < count() do
    local slot, r, t = get(gone)
    if ends(slot) > 0 then break end
    requests, tokens, gone = requests - r, tokens - t, gone + 1
  end
  slots = slots:sub(gone * size + 1)
end

local function save()
  local ttl = today > 0 and midnight or 0
  if requests > 0 then ttl = math.max(ttl, ends(last_requests)) end
  if tokens > 0 then ttl = math.max(ttl, ends(last_tokens)) end
  if ttl > 0 then
    local value = struct.pack(head, name, day, today, requests, tokens, last_requests, last_tokens) .. slots
    redis.call('SET', key, value, 'PX', math.ceil(ttl / 1000))
  else
    redis.call('DEL', key)
  end
end

-- give_back takes tokens out of a slot, if it is still there.
local function give_back(from, back)
  local i = count() - 1
  while i >= 0 do
    local slot, r, t = get(i)
    if slot < from then return end
    if slot == from then
      local rest = math.max(0, t - back)
      tokens = tokens - t + rest
      slots = slots:sub(1, i * size) .. struct.pack(entry, slot, r, rest) .. slots:sub((i + 1) * size + 1)
      if rest > 0 or last_tokens ~= slot then return end
      for before = i - 1, 0, -1 do -- which one has the last now
        slot, r, t = get(before)
        if t > 0 then
          last_tokens = slot
          return
        end
      end
      return
    end
    i = i - 1
  end
end

if act == 'settle' then
  local in_window, in_day = tonumber(ARGV[3]), tonumber(ARGV[4])
  local more = tonumber(ARGV[6]) - tonumber(ARGV[5])
  local slot, taken_day = math.min(tonumber(ARGV[7]), this), math.min(tonumber(ARGV[8]), day)
  if more > 0 then
    if in_window > 0 then add(0, more) end
    today = math.min(today + more * in_day, most_day)
  else
    if in_window > 0 then give_back(slot, -more) end
    if taken_day == day then today = math.max(0, today + more * in_day) end
  end
  save()
  return {0}
end

local limit_requests, limit_tokens, limit_day = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local want = tonumber(ARGV[6])

-- wait is how long it takes until no more than room is used.
local function wait(used, room, of_tokens)
  local over, i = used - room, 0
  while over > 0 and i < count() do
    local slot, r, t = get(i)
    over, i = over - (of_tokens and t or r), i + 1
    if over <= 0 then return ends(slot) end
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
if limit_tokens > 0 then lacks(2, wait(tokens, limit_tokens - want, true), want > limit_tokens) end
if limit_requests > 0 then lacks(1, wait(requests, limit_requests - 1, false), false) end

if over == 0 then
  local of_requests, of_tokens = limit_requests > 0 and 1 or 0, limit_tokens > 0 and want or 0
  if of_requests + of_tokens > 0 then add(of_requests, of_tokens) end
  if limit_day > 0 then today = math.min(today + want, most_day) end
  save()
end

return {
  over, retry, this, day,
  math.max(0, limit_requests - requests), requests > 0 and ends(last_requests) or 0,
  math.max(0, limit_tokens - tokens), tokens > 0 and ends(last_tokens) or 0,
  math.max(0, limit_day - today), today > 0 and midnight or 0,
}
