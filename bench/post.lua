-- POST a body (the file in BENCH_BODY); print what wrk saw as one JSON line.
-- BENCH_HEADERS: one header a line. BENCH_VARY: empty, or words of
--   trace  each call carries a traceparent of its own (a thousand of them, spread evenly over all trace ids)
--   body   no two bodies are equal: "Moby Dick" gets a number
local f = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
local vary = os.getenv("BENCH_VARY") or ""
local traced, changing = vary:find("trace") ~= nil, vary:find("body") ~= nil
local made, sent = {}, 0
wrk.method, wrk.body = "POST", f:read("*a")
f:close()
wrk.headers["Content-Type"] = "application/json"
for k, v in (os.getenv("BENCH_HEADERS") or ""):gmatch("([^:\n]+):%s*([^\n]*)") do wrk.headers[k] = v end

-- A trace id's last 64 bits decide whether it is sampled: 1 percent of these are, exactly.
local function traceparent(i)
  local part = i * 4294967 + 1
  return string.format("00-%08x%08x%08x%08x-%08x%08x-00", 0x5eed0000 + i, part, part, 0x9e370000 + i, part, i + 1)
end

local function head(i)
  if not traced then return wrk.headers end
  local all = { traceparent = traceparent(i) }
  for k, v in pairs(wrk.headers) do all[k] = v end
  return all
end

if changing then
  function request()
    sent = sent + 1
    local body = wrk.body:gsub("Moby Dick", "Moby Dick " .. sent, 1)
    return wrk.format("POST", nil, head(sent % 1000), body)
  end
elseif traced then
  function init()
    for i = 0, 999 do made[i] = wrk.format("POST", nil, head(i), wrk.body) end
  end
  function request()
    sent = sent + 1
    return made[sent % 1000]
  end
end

function done(s, l)
  local e = s.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.3f,"p50_us":%d,"p99_us":%d,"errors":%d}\n',
    s.requests, s.duration / 1e6, l:percentile(50), l:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
