//! Any text as a script, under small limits: it ends, and the next one finds nothing of it but the keys it wrote.

use std::sync::{Mutex, PoisonError};

use redis_protocol::resp2::types::OwnedFrame;

use crate::node::{Node, error};

static NODE: Mutex<Option<(Node, OwnedFrame)>> = Mutex::new(None);

/// Small, so that what runs into one of them does so soon.
const LIMITS: [&str; 10] = [
    "--busy-reply-threshold",
    "30",
    "--script-time-limit",
    "50",
    "--script-memory-limit",
    "8mb",
    "--script-write-limit",
    "256kb",
    "--client-output-buffer-limit",
    "4mb",
];

/// Everything that a script can find before it has done anything: names, types and what metatables say, three levels deep.
const SURVEY: &str = "
    local seen, lines = {}, {}
    local function survey(where, value, depth)
      lines[#lines + 1] = where .. ' ' .. type(value)
      if type(value) ~= 'table' or seen[value] or depth == 0 then return end
      seen[value] = true
      local meta = getmetatable(value)
      lines[#lines + 1] = where .. ' has ' .. type(meta)
      local names = {}
      for name in pairs(value) do names[#names + 1] = tostring(name) end
      table.sort(names)
      for _, name in ipairs(names) do survey(where .. '.' .. name, value[name], depth - 1) end
    end
    for _, name in ipairs({'redis', 'cjson', 'cmsgpack', 'struct', 'bit', 'string', 'table', 'math', 'coroutine', 'os', 'KEYS', 'ARGV',
        'pcall', 'error', 'type', 'pairs', 'next', 'tostring', 'tonumber', 'loadstring', 'rawset', 'setmetatable'}) do
      local found, value = pcall(function() return _G[name] end)
      survey(name, found and value or 'none', 3)
      local called, metatable = pcall(getmetatable, value)
      lines[#lines + 1] = name .. ' meta ' .. type(metatable)
    end
    local taken, problem = pcall(function() leftover_of_a_script = 1 end)
    lines[#lines + 1] = tostring(taken)
    lines[#lines + 1] = ('x'):upper() .. #('abc') .. string.format('%d', 7) .. cjson.encode({1, 2}) .. redis.sha1hex('a')
    lines[#lines + 1] = tostring(pcall(redis.call, 'nosuch')) .. #redis.call('PING').ok
    return lines";

/// Bytes as the text of a script of two keys and two arguments.
pub fn script(bytes: &[u8]) {
    let mut held = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let (node, untouched) = held.get_or_insert_with(|| {
        let mut node = Node::start(&LIMITS).expect("a store");
        let untouched = survey(&mut node);
        assert_eq!(error(&untouched), None);
        (node, untouched)
    });
    let answer = node.ask(&[b"EVAL", bytes, b"2", b"a", b"{b}", b"one", b"2"]);
    let text = error(&answer).unwrap_or_default();
    assert!(!text.contains("bug"), "{text}");
    // Nothing runs on, and nothing is left but what was written: no time passes in which it could still be at it.
    let killed = node.ask(&[b"SCRIPT", b"KILL"]);
    assert!(error(&killed).is_some_and(|text| text.starts_with("NOTBUSY")), "{killed:?}");
    let keys = node.ask(&[b"DBSIZE"]);
    if text.contains("nothing was changed") || text.contains("Error compiling") {
        assert_eq!(keys, OwnedFrame::Integer(0), "a script that was ended has changed something: {text}");
    }
    if keys != OwnedFrame::Integer(0) {
        node.ask(&[b"FLUSHALL"]);
    }
    assert_eq!(survey(node), *untouched, "the script has left something behind");
}

fn survey(node: &mut Node) -> OwnedFrame {
    node.ask(&[b"EVAL", SURVEY.as_bytes(), b"0"])
}
