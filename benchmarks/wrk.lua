-- POST the bodies of a file in turn, and print what was seen as one line of JSON.
-- arguments: the file, the content type. The file holds, per body, its length on a line, then it.
local requests, turn = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local headers = { ["Content-Type"] = arguments[2], ["Accept"] = "application/json" }
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    requests[#requests + 1] = wrk.format("POST", wrk.path, headers, file:read(length))
  end
  file:close()
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local lost = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests - lost.status, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    lost.status + lost.connect + lost.read + lost.write + lost.timeout))
end
