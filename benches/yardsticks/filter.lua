-- The filter's whole job as a Lua filter, with the same outcome for each webhook; the benchmark compares the two.
-- It has no metrics, because Lua has no API for them.

local bit = require("bit")
local byte, sub, find, char, concat = string.byte, string.sub, string.find, string.char, table.concat

local MAX_BODY_BYTES = 524288
local MAX_EVENT_BYTES = 32768
local MESSAGE_ID_MAX = 100
local NAME, VERSION = "stigg-segment-filter", "0.2.0"
local SECRET_HEADER = "stigg-webhooks-secret"
local CONSTANTS = '","context":{"library":{"name":"' .. NAME .. '","version":"' .. VERSION .. '"}},"properties":'

local WRITE_KEY = assert(os.getenv("SEGMENT_WRITE_KEY"), "SEGMENT_WRITE_KEY is not set")
local SECRETS = {}
for _, name in ipairs({ "STIGG_WEBHOOK_SECRET", "STIGG_WEBHOOK_SECRET_PREVIOUS" }) do
  SECRETS[#SECRETS + 1] = os.getenv(name)
end
assert(#SECRETS > 0, "STIGG_WEBHOOK_SECRET is not set")
local authorization -- set at the first request, whose handle has base64

-- Of the request's headers, these and those whose name starts with a colon stay.
local STAYS = { host = true, ["x-forwarded-proto"] = true, ["x-request-id"] = true }

-- JSON: checks the text without building anything.

local function malformed(at, expected)
  error({ malformed = true, at = at, expected = expected }, 0)
end

local function space(s, i)
  local c = byte(s, i)
  while c == 32 or c == 10 or c == 13 or c == 9 do
    i = i + 1
    c = byte(s, i)
  end
  return i
end

local function is_between(c, low, high)
  return c ~= nil and c >= low and c <= high
end

-- The end of the non-ASCII character that starts at `i`.
local function utf8(s, i)
  local c = byte(s, i)
  local low, high, more = 0x80, 0xBF, 1
  if c >= 0xC2 and c <= 0xDF then
    more = 1
  elseif c >= 0xE0 and c <= 0xEF then
    more = 2
    if c == 0xE0 then low = 0xA0 elseif c == 0xED then high = 0x9F end
  elseif c >= 0xF0 and c <= 0xF4 then
    more = 3
    if c == 0xF0 then low = 0x90 elseif c == 0xF4 then high = 0x8F end
  else
    malformed(i, "UTF-8")
  end
  if not is_between(byte(s, i + 1), low, high) then malformed(i, "UTF-8") end
  for n = 2, more do
    if not is_between(byte(s, i + n), 0x80, 0xBF) then malformed(i, "UTF-8") end
  end
  return i + more + 1
end

-- The string whose opening quote is at `i`: the position after its closing quote, and whether it has escapes.
local function string_end(s, i)
  local escaped = false
  i = i + 1
  while true do
    local c = byte(s, i)
    if c == nil then
      malformed(i, "the end of the string")
    elseif c == 34 then
      return i + 1, escaped
    elseif c == 92 then
      escaped = true
      c = byte(s, i + 1)
      if c == 117 then
        if not find(s, "^%x%x%x%x", i + 2) then malformed(i, "four hexadecimal digits") end
        i = i + 6
      elseif c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116 then
        i = i + 2
      else
        malformed(i, "an escape")
      end
    elseif c < 32 then
      malformed(i, "no control character")
    elseif c < 128 then
      i = i + 1
    else
      i = utf8(s, i)
    end
  end
end

local function digits_end(s, i)
  if not is_between(byte(s, i), 48, 57) then malformed(i, "a digit") end
  repeat i = i + 1 until not is_between(byte(s, i), 48, 57)
  return i
end

local function number_end(s, i)
  if byte(s, i) == 45 then i = i + 1 end
  if byte(s, i) == 48 then i = i + 1 else i = digits_end(s, i) end
  if byte(s, i) == 46 then i = digits_end(s, i + 1) end
  local c = byte(s, i)
  if c == 101 or c == 69 then
    c = byte(s, i + 1)
    i = digits_end(s, (c == 43 or c == 45) and i + 2 or i + 1)
  end
  return i
end

local function literal_end(s, i)
  if sub(s, i, i + 3) == "true" or sub(s, i, i + 3) == "null" then return i + 4 end
  if sub(s, i, i + 4) == "false" then return i + 5 end
  malformed(i, "a value")
end

-- The key at `i`: its end with the quote, the position of the value, and whether it has escapes.
local function key_end(s, i)
  if byte(s, i) ~= 34 then malformed(i, "a key") end
  local stop, escaped = string_end(s, i)
  i = space(s, stop)
  if byte(s, i) ~= 58 then malformed(i, "a colon") end
  return stop, space(s, i + 1), escaped
end

-- The position after the value at `i`, at any depth of nesting, and whether it is a string with escapes.
local is_object = {}
local function value_end(s, i)
  local depth = 0
  while true do
    local escaped = false
    local opened = false
    local c = byte(s, i)
    if c == 34 then
      i, escaped = string_end(s, i)
    elseif c == 123 then
      i = space(s, i + 1)
      if byte(s, i) == 125 then
        i = i + 1
      else
        depth = depth + 1
        is_object[depth] = true
        local _, value = key_end(s, i)
        i, opened = value, true
      end
    elseif c == 91 then
      i = space(s, i + 1)
      if byte(s, i) == 93 then
        i = i + 1
      else
        depth = depth + 1
        is_object[depth] = false
        opened = true
      end
    elseif c == 45 or is_between(c, 48, 57) then
      i = number_end(s, i)
    else
      i = literal_end(s, i)
    end
    while not opened do
      if depth == 0 then return i, escaped end
      i = space(s, i)
      c = byte(s, i)
      if c == 44 then
        i = space(s, i + 1)
        if is_object[depth] then
          local _, value = key_end(s, i)
          i = value
        end
        opened = true
      elseif c == (is_object[depth] and 125 or 93) then
        depth = depth - 1
        i = i + 1
      else
        malformed(i, is_object[depth] and "a comma or }" or "a comma or ]")
      end
    end
  end
end

local function code_point(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + bit.rshift(code, 6), 0x80 + bit.band(code, 0x3F)) end
  local last = 0x80 + bit.band(code, 0x3F)
  local middle = 0x80 + bit.band(bit.rshift(code, 6), 0x3F)
  if code < 0x10000 then return char(0xE0 + bit.rshift(code, 12), middle, last) end
  return char(0xF0 + bit.rshift(code, 18), 0x80 + bit.band(bit.rshift(code, 12), 0x3F), middle, last)
end

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- Decodes a string; a lone surrogate is a character too.
local function decoded(raw)
  local out, i = {}, 1
  while i <= #raw do
    local c = sub(raw, i, i)
    if c ~= "\\" then
      out[#out + 1] = c
      i = i + 1
    elseif sub(raw, i + 1, i + 1) ~= "u" then
      c = sub(raw, i + 1, i + 1)
      out[#out + 1] = ESCAPES[c] or c
      i = i + 2
    else
      local code = tonumber(sub(raw, i + 2, i + 5), 16)
      i = i + 6
      local low = code >= 0xD800 and code < 0xDC00 and string.match(raw, "^\\u([dD][c-fC-F]%x%x)", i)
      if low then
        code = 0x10000 + (code - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00
        i = i + 6
      end
      out[#out + 1] = code_point(code)
    end
  end
  return concat(out)
end

-- Reads the object at `i`, if it is one, and puts the wanted members into `found`. If a key occurs more than once, the
-- last one counts.
local function read_members(s, i, wanted, found)
  i = space(s, i + 1)
  if byte(s, i) == 125 then return i + 1 end
  while true do
    local stop, value, escaped = key_end(s, i)
    local key = sub(s, i + 1, stop - 2)
    local child = wanted[escaped and decoded(key) or key]
    if child == nil then
      i = value_end(s, value)
    else
      local member = { kind = byte(s, value) }
      if child ~= true and member.kind == 123 then
        member.members = {}
        i = read_members(s, value, child, member.members)
      else
        i, member.escaped = value_end(s, value)
      end
      member.first, member.last = value, i - 1
      found[escaped and decoded(key) or key] = member
    end
    i = space(s, i)
    local c = byte(s, i)
    if c == 125 then return i + 1 end
    if c ~= 44 then malformed(i, "a comma or }") end
    i = space(s, i + 1)
  end
end

local WANTED = { type = true, messageId = true, timestamp = true, customer = { id = true } }

local function read(s)
  local found = {}
  local i = space(s, 1)
  local is_an_object = byte(s, i) == 123
  i = is_an_object and read_members(s, i, WANTED, found) or value_end(s, i)
  i = space(s, i)
  if i <= #s then malformed(i, "the end") end
  return is_an_object and found or nil
end

-- The mapping of an event.

local function is_in(number, low, high)
  number = tonumber(number)
  return number ~= nil and number >= low and number <= high
end

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function is_date_time(text)
  local year, month, day, hour, minute, second, rest =
    string.match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt](%d%d):(%d%d):(%d%d)(.*)$")
  if not year then
    second = "00"
    year, month, day, hour, minute, rest = string.match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt](%d%d):(%d%d)([Zz+-].*)$")
  end
  if not year or not is_in(month, 1, 12) then return false end
  local days = DAYS[tonumber(month)]
  year = tonumber(year)
  if month == "02" and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) then days = 29 end
  if not (is_in(day, 1, days) and is_in(hour, 0, 23) and is_in(minute, 0, 59) and is_in(second, 0, 60)) then
    return false
  end
  local offset = string.match(rest, "^%.%d+(.*)$") or rest
  if offset == "Z" or offset == "z" then return true end
  local hours, minutes = string.match(offset, "^[+-](%d%d):?(%d%d)$")
  return hours ~= nil and is_in(hours, 0, 23) and is_in(minutes, 0, 59)
end

local SHA256 = {}
do -- the fractional parts of the cube roots of the first 64 primes
  local n = 2
  while #SHA256 < 64 do
    local prime = true
    for d = 2, math.sqrt(n) do
      if n % d == 0 then prime = false end
    end
    if prime then SHA256[#SHA256 + 1] = bit.tobit(math.floor((n ^ (1 / 3) % 1) * 2 ^ 32)) end
    n = n + 1
  end
end

local function sha256(text)
  local band, bxor, bnot, ror, rshift, tobit = bit.band, bit.bxor, bit.bnot, bit.ror, bit.rshift, bit.tobit
  local h = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 }
  local bits = #text * 8
  text = text .. "\128" .. string.rep("\0", (55 - #text) % 64) .. "\0\0\0\0"
    .. char(band(rshift(bits, 24), 255), band(rshift(bits, 16), 255), band(rshift(bits, 8), 255), band(bits, 255))
  local w = {}
  for block = 1, #text, 64 do
    for n = 1, 16 do
      local a, b, c, d = byte(text, block + n * 4 - 4, block + n * 4 - 1)
      w[n] = tobit(a * 2 ^ 24 + b * 2 ^ 16 + c * 2 ^ 8 + d)
    end
    for n = 17, 64 do
      local x, y = w[n - 15], w[n - 2]
      w[n] = tobit(w[n - 16] + bxor(ror(x, 7), ror(x, 18), rshift(x, 3)) + w[n - 7]
        + bxor(ror(y, 17), ror(y, 19), rshift(y, 10)))
    end
    local a, b, c, d, e, f, g, k = unpack(h)
    for n = 1, 64 do
      local t = tobit(k + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) + SHA256[n] + w[n])
      local u = tobit(bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c)))
      k, g, f, e, d, c, b, a = g, f, e, tobit(d + t), c, b, a, tobit(t + u)
    end
    for n, add in ipairs({ a, b, c, d, e, f, g, k }) do
      h[n] = tobit(h[n] + add)
    end
  end
  for n = 1, 8 do
    h[n] = bit.tohex(h[n])
  end
  return concat(h)
end

-- The text of a string between its quotes; nil if it is not a string.
local function text(s, member)
  if member and member.kind == 34 then return sub(s, member.first + 1, member.last - 1) end
end

-- Replaces every dot with an underscore, also an escaped one.
local function event_name(kind, escaped)
  if not escaped then return (string.gsub(kind, "%.", "_")) end
  local out, i = {}, 1
  while i <= #kind do
    local size = 1
    if sub(kind, i, i) == "\\" then size = sub(kind, i + 1, i + 1) == "u" and 6 or 2 end
    local piece = sub(kind, i, i + size - 1)
    out[#out + 1] = (piece == "." or string.lower(piece) == "\\u002e") and "_" or piece
    i = i + size
  end
  return concat(out)
end

local MESSAGE_ID_PREFIX = "stigg-" .. sub(sha256(WRITE_KEY), 1, 8) .. "-"

local function is_absent(s, member)
  local value = member and sub(s, member.first, member.last)
  return not value or value == "null" or value == '""'
end

local function message_id(s, member, timestamp)
  local id = text(s, member)
  if id then
    local _, continuing = string.gsub(member.escaped and decoded(id) or id, "[\128-\191]", "")
    local size = #(member.escaped and decoded(id) or id) - continuing
    if size > 0 and size <= MESSAGE_ID_MAX - #MESSAGE_ID_PREFIX then return id end
  end
  if is_absent(s, member) and is_absent(s, timestamp) then s = s .. "\n" .. math.floor(os.time() / 86400) end
  return "sha256-" .. sub(sha256(s), 1, MESSAGE_ID_MAX - #MESSAGE_ID_PREFIX - 7)
end

local function reject(status, code, message)
  error({ status = status, code = code, message = message }, 0)
end

local function user_id(s, id)
  if id == nil or id.kind == 110 or id.kind == 102 then return nil end
  if id.kind == 34 then
    local user = text(s, id)
    return user ~= "" and user or nil
  end
  if id.kind == 45 or is_between(id.kind, 48, 57) then
    local number = sub(s, id.first, id.last)
    if not find(string.match(number, "^[^eE]*"), "[1-9]") then return nil end
    local value = tonumber(number) -- nil if Lua cannot read so long an exponent
    if value == 0 or (value == nil and find(number, "[eE]%-")) then return nil end -- 1e-400 is 0
    return number
  end
  reject(400, "invalid_customer_id",
    "The customer's id is neither a string nor a number; send the customer's id as a string.")
end

-- The start of the track call for an event, or nil if it is not about a customer; then the event's type.
local function map(s)
  local event = read(s)
  if event == nil then
    reject(400, "not_an_object", "The body is JSON, but not an object; send one Stigg event as an object.")
  end
  local kind = text(s, event.type)
  local user = user_id(s, event.customer and event.customer.members and event.customer.members.id)
  if user == nil then return nil, kind end
  if kind == nil or kind == "" then
    reject(400, "invalid_type", "type is not a non-empty string; send the name of the event, such as customer.updated.")
  end
  local timestamp = text(s, event.timestamp)
  if timestamp and not is_date_time(event.timestamp.escaped and decoded(timestamp) or timestamp) then timestamp = nil end
  local head = concat({
    '{"event":"', event_name(kind, event.type.escaped),
    '","userId":"', user,
    '","messageId":"', MESSAGE_ID_PREFIX, message_id(s, event.messageId, event.timestamp),
    timestamp and '","timestamp":"' or "", timestamp or "",
    CONSTANTS,
  })
  return head, kind
end

-- The time this takes reveals at most the length of the secrets, not which one matched.
local function is_secret(value)
  local matched = false
  for _, secret in ipairs(SECRETS) do
    local difference = #secret == #value and 0 or 1
    for i = 1, #secret do
      difference = bit.bor(difference, bit.bxor(byte(secret, i), byte(value, i) or 0))
    end
    matched = difference == 0 or matched
  end
  return matched
end

local function check_headers(headers)
  if headers:get(":method") ~= "POST" then
    reject(405, "method_not_allowed", "Send webhooks to this URL with POST.")
  end
  local count = headers:getNumValues(SECRET_HEADER)
  local admitted = count > 0
  for i = 0, count - 1 do
    admitted = is_secret(headers:getAtIndex(SECRET_HEADER, i)) and admitted
  end
  if not admitted then
    reject(401, "unauthorized", "The header " .. SECRET_HEADER .. " is missing or is not the configured secret; copy the"
      .. " webhook's secret from Stigg into the gateway's environment.")
  end
  for i = 0, headers:getNumValues("content-encoding") - 1 do
    if string.lower(headers:getAtIndex("content-encoding", i)) ~= "identity" then
      reject(415, "unsupported_content_encoding",
        "Send the body without a content-encoding, or put a decompressor before this filter.")
    end
  end
end

local function check_body_size(size)
  if size > MAX_BODY_BYTES then
    reject(413, "body_too_large", "The body is over " .. MAX_BODY_BYTES .. " bytes; send a smaller event.")
  end
end

local function rewrite_headers(headers, size)
  local gone = {}
  for name in pairs(headers) do
    if byte(name) ~= 58 and not STAYS[name] then gone[#gone + 1] = name end
  end
  for _, name in ipairs(gone) do
    headers:remove(name)
  end
  local path = headers:get(":path")
  local query = find(path, "?", 1, true)
  if query then headers:replace(":path", sub(path, 1, query - 1)) end
  headers:add("content-type", "application/json")
  headers:add("user-agent", NAME .. "/" .. VERSION)
  headers:add("authorization", authorization)
  headers:add("content-length", tostring(size))
end

local function serve(handle)
  local headers = handle:headers()
  check_headers(headers)
  check_body_size(tonumber(headers:get("content-length") or "0") or math.huge)
  local buffer = handle:body()
  local size = buffer and buffer:length() or 0
  check_body_size(size)
  if size == 0 then reject(400, "empty_body", "The body is empty; send one Stigg event as a JSON object.") end

  local body = buffer:getBytes(0, size)
  local head, kind = map(body)
  if kind then handle:streamInfo():dynamicMetadata():set("stigg", "event", sub(kind, 1, 64)) end
  if head == nil then return { status = 204 } end
  local call = #head + size + 1
  if call > MAX_EVENT_BYTES then
    reject(413, "call_too_large", "The track call for this event is " .. call .. " bytes, and Segment takes at most "
      .. MAX_EVENT_BYTES .. "; send a smaller event.")
  end
  authorization = authorization or "Basic " .. handle:base64Escape(WRITE_KEY .. ":")
  buffer:setBytes(head .. body .. "}")
  rewrite_headers(handle:headers(), call) -- the earlier handle is invalid after the body
  local trailers = handle:trailers()
  if trailers then
    local gone = {}
    for name in pairs(trailers) do
      gone[#gone + 1] = name
    end
    for _, name in ipairs(gone) do
      trailers:remove(name)
    end
  end
end

local function describe(problem)
  return "The body is not JSON: expected " .. problem.expected .. " at byte " .. problem.at - 1
    .. "; send one JSON object in UTF-8."
end

function envoy_on_request(handle)
  local done, outcome = pcall(serve, handle)
  if done and outcome == nil then return end
  if type(outcome) ~= "table" then
    handle:logErr(tostring(outcome))
    outcome = { status = 500, code = "internal", message = "The gateway could not rewrite the request; deliver it again." }
  elseif outcome.malformed then
    outcome = { status = 400, code = "malformed_json", message = describe(outcome) }
  end
  local headers = { [":status"] = tostring(outcome.status) }
  if outcome.status == 204 then return handle:respond(headers) end
  headers["content-type"] = "application/json"
  handle:respond(headers, '{"code":"' .. outcome.code .. '","message":"' .. outcome.message .. '"}')
end
