-- What a script sees. Given: the libraries written in Rust. What they raise is no plain value until it is caught.
local natives, raise_at = ...
local error, select, setmetatable, rawget, rawset, type = error, select, setmetatable, rawget, rawset, type

-- What is caught goes on to be raised once the script is to end. What was raised in Rust becomes a plain value.
local ended, plain = natives.ended, natives.plain
local function caught(ok, ...)
  if ok then return true, ... end
  local problem = ...
  if ended() then error(problem, 0) end
  if type(problem) == "userdata" then problem = plain(problem) end
  return false, problem
end

local protected = setmetatable({}, {__mode = "k"})

-- A table that can be read through and not written to.
local function read_only(content)
  local shown = setmetatable({}, {
    __index = content,
    __newindex = function() error(raise_at("Attempt to modify a readonly table"), 0) end,
    __metatable = false,
  })
  protected[shown] = true
  return shown
end

local globals = {
  assert = assert, collectgarbage = function(option) return option == "count" and gcinfo() or 0 end, error = error, gcinfo = gcinfo,
  ipairs = ipairs, next = next, pairs = pairs, rawequal = rawequal, rawget = rawget,
  select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack,
  _VERSION = _VERSION,
}

local pcall, xpcall = pcall, xpcall
function globals.pcall(...) return caught(pcall(...)) end
function globals.xpcall(f, handler)
  return caught(xpcall(f, function(problem)
    if type(problem) == "userdata" and not ended() then problem = plain(problem) end
    return handler(problem)
  end))
end
local resume = coroutine.resume
function coroutine.resume(...) return caught(resume(...)) end

function globals.setmetatable(where, meta)
  if protected[where] then error(raise_at("Attempt to modify a readonly table"), 0) end
  return setmetatable(where, meta)
end
local getmetatable = getmetatable
function globals.getmetatable(where)
  if protected[where] then return read_only({}) end
  return getmetatable(where)
end
function globals.rawset(where, key, value)
  if protected[where] then error(raise_at("Attempt to modify a readonly table"), 0) end
  return rawset(where, key, value)
end

-- No byte code: it can be made to read and write memory at will.
local load_text = natives.load
function globals.loadstring(text, name)
  if type(text) ~= "string" then error(raise_at("bad argument #1 to 'loadstring' (string expected)"), 0) end
  return load_text(text, name)
end
function globals.load(reader, name)
  local parts = {}
  while true do
    local part = reader()
    if part == nil or part == "" then break end
    parts[#parts + 1] = part
  end
  return load_text(table.concat(parts), name)
end

-- Lua's own look at no clock.
local patterns = natives.patterns
string.find, string.match, string.gsub = patterns.find, patterns.match, patterns.gsub
local step = patterns.step
function string.gmatch(text, pattern)
  local at = 0
  local function go(next_at, ...)
    at = next_at
    return ...
  end
  return function() return go(step(text, pattern, at)) end
end

string.dump = nil
getmetatable("").__metatable = false

globals.string, globals.table, globals.math, globals.coroutine =
  read_only(string), read_only(table), read_only(math), read_only(coroutine)
globals.os = read_only({clock = os.clock})
globals.cjson = natives.cjson
globals.cjson.null = natives.null
globals.cjson.new = function() return globals.cjson end
globals.cjson = read_only(globals.cjson)
globals.cmsgpack = read_only(natives.cmsgpack)
globals.struct = read_only(natives.struct)
globals.bit = read_only(natives.bit)

local redis = natives.redis
-- What is called while a script runs; the interpreter sets and takes it away.
local running = {}
natives.running = running
redis.call, redis.pcall = natives.call, natives.pcall
function redis.setresp(version)
  if version ~= 2 and version ~= 3 then error("RESP version must be 2 or 3.", 0) end
  running.version = version
end
function redis.error_reply(text)
  if type(text) ~= "string" then return {err = "ERR wrong number or type of arguments"} end
  text = text:gsub("^%-", "")
  -- A text of one word is no code.
  if not text:find(" ") then text = "ERR " .. text end
  return {err = text}
end
function redis.status_reply(text)
  if type(text) ~= "string" then return {err = "ERR wrong number or type of arguments"} end
  return {ok = text}
end
local in_scripts = {}
for name, value in pairs(redis) do in_scripts[name] = value end
globals.redis = read_only(in_scripts)
globals.server = globals.redis

local function missing(_, name)
  error(raise_at("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'"), 0)
end
globals._G = read_only(setmetatable(globals, {__index = missing}))

-- What a library of functions sees: while it is loaded it registers, and calls nothing.
local hidden, while_loading, loading = {math = true, getmetatable = true}, {}
setmetatable(while_loading, {__index = function(where, name)
  if not running.register then return globals[name] end
  if hidden[name] then return missing(where, name) end
  if name == "redis" or name == "server" then return loading end
  return globals[name]
end})
local for_functions, not_while_loading = {register_function = natives.register}, {call = true, pcall = true, setresp = true, set_repl = true}
for name, value in pairs(redis) do
  if not not_while_loading[name] then for_functions[name] = value end
end
setmetatable(for_functions, {__index = function(where, name)
  local value = not running.register and redis[name]
  if value then return value end
  return missing(where, name)
end})
loading = read_only(for_functions)
local function library_environment()
  local environment = setmetatable({}, {
    __index = while_loading,
    __newindex = function() error(raise_at("Attempt to modify a readonly table"), 0) end,
    __metatable = false,
  })
  protected[environment] = true
  return environment
end
while_loading._G = false

-- Calls a function; what it raises comes back as a table, with the place it was raised at.
local place = natives.place
local function failed(problem)
  if type(problem) == "userdata" then problem = plain(problem) end
  if type(problem) ~= "table" then problem = {err = "ERR " .. tostring(problem)} end
  local source, line = place()
  return {err = problem.err or "ERR unknown error", source = problem.source or source, line = problem.line or line}
end
local function run(f, ...)
  local arguments, count = {...}, select("#", ...)
  return xpcall(function() return f(unpack(arguments, 1, count)) end, failed)
end

return {
  globals = globals, environment = globals._G, running = running, library_environment = library_environment, run = run,
}
