//! Scripts and functions: what they see and answer beside a real redis-server, and what nobody else promises of them.

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::reference::RedisServer;

/// Scripts with their keys and arguments, run in this order.
const SCRIPTS: &[(&str, &[&str], &[&str])] = &[
    ("return 1", &[], &[]),
    ("return 3.99", &[], &[]),
    ("return -3.99", &[], &[]),
    ("return {1,2,{3,'four',{5}},nil,6}", &[], &[]),
    ("return {KEYS[1],KEYS[2],ARGV[1],#ARGV}", &["a", "{a}b"], &["x", "y"]),
    ("return {true,false,1}", &[], &[]),
    ("return nil", &[], &[]),
    ("return 'a\\r\\nb'", &[], &[]),
    ("return {ok='FINE'}", &[], &[]),
    ("return {err='MY problem'}", &[], &[]),
    ("return {err='-MY problem'}", &[], &[]),
    ("return redis.error_reply('MY other')", &[], &[]),
    ("return redis.status_reply('fine')", &[], &[]),
    ("return redis.error_reply(1)", &[], &[]),
    ("return redis.error_reply('single')", &[], &[]),
    ("return redis.error_reply('-single')", &[], &[]),
    ("return redis.error_reply('')", &[], &[]),
    ("local a = {} for i = 1, 7900 do a[i] = i end return redis.call('rpush', KEYS[1], unpack(a))", &["many"], &[]),
    ("local ok = pcall(setmetatable, _G, {}) return {tostring(ok), type(getmetatable(_G))}", &[], &[]),
    ("return redis.call('set', KEYS[1], ARGV[1])", &["k"], &["1"]),
    ("return redis.call('get', KEYS[1])", &["k"], &[]),
    ("return redis.call('get', KEYS[1])", &["none"], &[]),
    ("return type(redis.call('get', 'none'))", &[], &[]),
    ("return redis.call('incrby', KEYS[1], 41)", &["k"], &[]),
    ("redis.call('set', KEYS[1], 3.5) return redis.call('get', KEYS[1])", &["k"], &[]),
    ("redis.call('set', KEYS[1], 10) return redis.call('get', KEYS[1])", &["k"], &[]),
    ("return redis.call('incr', KEYS[1])", &["k"], &[]),
    ("redis.call('set', KEYS[1], 'text') return redis.call('incr', KEYS[1])", &["k"], &[]),
    ("return redis.pcall('incr', KEYS[1])", &["k"], &[]),
    ("return redis.pcall('incr', KEYS[1]).err", &["k"], &[]),
    // What is caught is a table since 7.2, and a text in the server compared with.
    ("local ok, e = pcall(redis.call, 'incr', KEYS[1]) return {tostring(ok), type(e) == 'table' and e.err or e}", &["k"], &[]),
    ("\n\nreturn redis.call('incr', KEYS[1])", &["k"], &[]),
    ("local x = redis.call('lpush', KEYS[1], 'x')\nreturn x", &["k"], &[]),
    ("redis.call('set', KEYS[1], 'before') error('boom')", &["failed"], &[]),
    ("return redis.call('get', KEYS[1])", &["failed"], &[]),
    ("error({err='MY err'})", &[], &[]),
    // Not `error({})`: the server compared with ends at it.
    ("error()", &[], &[]),
    ("error('with level', 0)", &[], &[]),
    ("return redis.call()", &[], &[]),
    ("return redis.call('nosuchcommand')", &[], &[]),
    ("return redis.call('get')", &[], &[]),
    ("return redis.call('get', {})", &[], &[]),
    ("return redis.call('multi')", &[], &[]),
    ("return redis.call('eval', 'return 1', 0)", &[], &[]),
    ("return redis.call('subscribe', 'x')", &[], &[]),
    ("return redis.call('ping')", &[], &[]),
    ("return redis.call('echo', ARGV[1])", &[], &["text"]),
    ("return redis.call('type', KEYS[1])", &["k"], &[]),
    ("return redis.call('type', KEYS[1]).ok", &["k"], &[]),
    ("return redis.call('hset', KEYS[1], 'f', 1, 'g', 2)", &["h"], &[]),
    ("return redis.call('hgetall', KEYS[1])", &["h"], &[]),
    ("redis.setresp(3) local m = redis.call('hgetall', KEYS[1]) return m.map.f", &["h"], &[]),
    ("redis.setresp(3) return redis.call('hget', KEYS[1], 'none') == nil", &["h"], &[]),
    (
        "redis.setresp(3) redis.call('zadd', KEYS[1], 1.5, 'm') return redis.call('zscore', KEYS[1], 'm').double == 1.5",
        &["z"],
        &[],
    ),
    ("redis.setresp(4)", &[], &[]),
    ("redis.call('sadd', KEYS[1], 1) redis.setresp(3) return redis.call('smembers', KEYS[1]).set['1']", &["st"], &[]),
    ("return {double=1.5}", &[], &[]),
    ("return {map={a=1}}", &[], &[]),
    ("return {big_number='123456789012345678901234567890'}", &[], &[]),
    ("return {big_number='123\\r\\n456'}", &[], &[]),
    ("redis.setresp(3) return {false, true, {map={a=false}}}", &[], &[]),
    ("redis.setresp(3) return false", &[], &[]),
    ("redis.call('select', 3) redis.call('set', KEYS[1], 'in 3') return redis.call('get', KEYS[1])", &["s3"], &[]),
    ("return redis.call('get', KEYS[1])", &["s3"], &[]),
    ("for i = 1, 20 do redis.call('rpush', KEYS[1], i) end return redis.call('lrange', KEYS[1], 3, 7)", &["l"], &[]),
    ("redis.call('hset', KEYS[1], 'x', 1) redis.call('hdel', KEYS[1], 'f') return redis.call('hkeys', KEYS[1])", &["h"], &[]),
    (
        "redis.call('del', KEYS[1]) redis.call('zadd', KEYS[1], 2, 'b', 1, 'a') return redis.call('zrange', KEYS[1], 0, -1)",
        &["z"],
        &[],
    ),
    ("local all = {} for i = 1, 7000 do all[i] = i end return redis.call('rpush', KEYS[1], unpack(all))", &["unpacked"], &[]),
    ("return redis.call('set', KEYS[1], nil)", &["k"], &[]),
    ("foo = 1", &[], &[]),
    ("return foo", &[], &[]),
    ("KEYS = 1", &[], &[]),
    ("string.sub = nil", &[], &[]),
    ("redis.call = nil", &[], &[]),
    ("return #_G", &[], &[]),
    ("return tostring(io) .. tostring(require)", &[], &[]),
    ("return type(dofile)", &[], &[]),
    ("return loadstring('return 1 + 1')()", &[], &[]),
    ("return loadstring('return bad bad')", &[], &[]),
    ("return 1 +", &[], &[]),
    ("local function f(n) if n == 0 then return 'deep' end return f(n - 1) end return f(1000)", &[], &[]),
    ("return redis.sha1hex('')", &[], &[]),
    ("return redis.sha1hex()", &[], &[]),
    ("return cjson.encode({1, 2, 'x', {a = 1.5}, true, cjson.null})", &[], &[]),
    ("return cjson.decode(ARGV[1])", &[], &["[1,\"two\",[3,{\"x\":null}],true]"]),
    ("return cjson.decode(ARGV[1]).a.b", &[], &["{\"a\":{\"b\":\"\\u00e4\\n\"}}"]),
    ("local ok, e = pcall(cjson.decode, ARGV[1]) return {tostring(ok), e}", &[], &["{\"a\":"]),
    ("return cjson.encode({[1] = 1, [100] = 2})", &[], &[]),
    ("return cjson.encode(0.1)", &[], &[]),
    ("return cjson.encode({123456789012345, 99999999999999, [123456789012345] = 1})", &[], &[]),
    ("return cjson.encode({[123456789012345] = 1, x = -4})", &[], &[]),
    (
        "return {cjson.encode_sparse_array(true), cjson.encode({[1] = 1, [100] = 2}), cjson.encode_sparse_array(false, 2, 10)}",
        &[],
        &[],
    ),
    ("local a = {cjson.encode_sparse_array()} return {tostring(a[1]), a[2], a[3]}", &[], &[]),
    (
        "cjson.encode_sparse_array(false, 0) local e = cjson.encode({[1] = 1, [12] = 2}) cjson.encode_sparse_array(false, 2, 10) return e",
        &[],
        &[],
    ),
    (
        "return {cjson.encode_max_depth(2), pcall(cjson.encode, {{{}}}), cjson.encode({{}}), cjson.encode_max_depth(1000)}",
        &[],
        &[],
    ),
    (
        "cjson.decode_max_depth(2) local ok, e = pcall(cjson.decode, '[1, [2, [3]]]') cjson.decode_max_depth(1000) return {tostring(ok), e}",
        &[],
        &[],
    ),
    (
        "cjson.encode_number_precision(3) local e = cjson.encode({1 / 3, 12345}) cjson.encode_number_precision(14) return e",
        &[],
        &[],
    ),
    (
        "cjson.encode_invalid_numbers('null') local e = cjson.encode({0 / 0, 1 / 0}) cjson.encode_invalid_numbers(false) return e",
        &[],
        &[],
    ),
    (
        "cjson.encode_invalid_numbers(true) local e = cjson.encode({1 / 0, -1 / 0}) cjson.encode_invalid_numbers(false) return e",
        &[],
        &[],
    ),
    (
        "return {tostring(cjson.encode_keep_buffer()), tostring(cjson.encode_invalid_numbers()), cjson.encode_number_precision()}",
        &[],
        &[],
    ),
    ("local t = cjson.decode('[0x10, 007, -inf, +5]') return {t[1], t[2], tostring(t[3]), t[4]}", &[], &[]),
    (
        "cjson.decode_invalid_numbers(false) local a, e = pcall(cjson.decode, '[0x10]') cjson.decode_invalid_numbers(true) return {tostring(a), e}",
        &[],
        &[],
    ),
    (
        "cjson.decode_invalid_numbers(false) local a, e = pcall(cjson.decode, '[nan]') cjson.decode_invalid_numbers(true) return {tostring(a), e}",
        &[],
        &[],
    ),
    ("local ok, e = pcall(cjson.encode_max_depth, 0) return tostring(ok)", &[], &[]),
    ("local ok, e = pcall(cjson.encode_invalid_numbers, 'maybe') return tostring(ok)", &[], &[]),
    ("local ok, e = pcall(cjson.encode_keep_buffer, true, true) return tostring(ok)", &[], &[]),
    ("return cjson.encode(1e20)", &[], &[]),
    ("return cjson.encode({})", &[], &[]),
    ("return cmsgpack.pack(1, 'two', {3, 4}, {a = 5}, -70000, 1.5, true)", &[], &[]),
    ("return {cmsgpack.unpack(cmsgpack.pack(1, 'two', {3, 4}))}", &[], &[]),
    // More than Lua's stack holds.
    ("local t = {} for i = 1, 30000 do t[i] = 'e' .. i end return t", &[], &[]),
    ("local t = {} for i = 1, 30000 do t['k' .. i] = 'v' .. i end return cmsgpack.unpack(cmsgpack.pack(t)).k29999", &[], &[]),
    ("local t = {} for i = 1, 30000 do t['k' .. i] = 'v' .. i end return cjson.decode(cjson.encode(t)).k29999", &[], &[]),
    ("for i = 1, 20000 do redis.call('rpush', KEYS[1], i) end return redis.call('lrange', KEYS[1], 0, -1)", &["long"], &[]),
    ("for i = 1, 20000 do redis.call('hset', KEYS[1], i, i) end return #redis.call('hgetall', KEYS[1])", &["wide"], &[]),
    ("return struct.pack('>HhiLsc3', 1, -2, 3, 4, 'five', 'six')", &[], &[]),
    ("return {struct.unpack('>Hh', '\\0\\1\\255\\254')}", &[], &[]),
    (
        "return {bit.band(255, 15), bit.bor(1, 6), bit.bxor(5, 1), bit.bnot(0), bit.lshift(1, 31), bit.rshift(-1, 28), bit.arshift(-16, 2)}",
        &[],
        &[],
    ),
    ("return {bit.tohex(255), bit.tohex(-1, -4), bit.rol(1, 33), bit.bswap(0x01020304), bit.tobit(0xffffffff)}", &[], &[]),
    ("return math.floor(3.7) .. string.format('%05d %s', 42, 'x') .. table.concat({1, 2}, ',')", &[], &[]),
    ("return redis.REDIS_VERSION_NUM > 0", &[], &[]),
    ("return {redis.LOG_DEBUG, redis.LOG_WARNING, redis.REPL_ALL}", &[], &[]),
    ("return redis.log('x')", &[], &[]),
    ("#!lua\nreturn 5", &[], &[]),
    ("#!lua flags=no-writes\nreturn redis.call('set', KEYS[1], 1)", &["k"], &[]),
    ("#!lua flags=nosuch\nreturn 1", &[], &[]),
    ("#!python\nreturn 1", &[], &[]),
    ("#!lua name=x\nreturn 1", &[], &[]),
];

/// How Redis names a script's place differs with what it was built with: the text before it does not.
fn normal(answer: Answer) -> Answer {
    match answer {
        Answer::Error(text) => Answer::Error(text.replace("  ", " ")),
        other => other,
    }
}

async fn both(theirs: &mut Connection, ours: &mut Connection, words: &[&str]) -> anyhow::Result<()> {
    let expected = normal(theirs.ask(words).await.with_context(|| format!("redis, {words:?}"))?);
    let found = normal(ours.ask(words).await.with_context(|| format!("sluice, {words:?}"))?);
    ensure!(expected == found, "{words:?}\n redis: {expected:?}\nsluice: {found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_answer_as_those_of_redis_do() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let mut differences = Vec::new();
    for version in ["2", "3"] {
        let (mut theirs, mut ours) = (Connection::open(&redis.address()).await?, Connection::open(&store.address()).await?);
        theirs.ask(&["HELLO", version]).await?;
        ours.ask(&["HELLO", version]).await?;
        both(&mut theirs, &mut ours, &["FLUSHALL"]).await?;
        for (script, keys, arguments) in SCRIPTS {
            let count = keys.len().to_string();
            let words = [&["EVAL", *script, &count][..], keys, arguments].concat();
            if let Err(error) = both(&mut theirs, &mut ours, &words).await {
                differences.push(error.to_string());
            }
        }
        for words in [
            &["EVAL", "return 1"][..],
            &["EVAL", "return 1", "x"],
            &["EVAL", "return 1", "-1"],
            &["EVAL", "return 1", "2", "a"],
            &["EVALSHA", "0000000000000000000000000000000000000000", "0"],
            &["EVALSHA", "x", "0"],
            &["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"],
            &["SCRIPT", "LOAD", "return 'loaded'"],
            &["SCRIPT", "LOAD", "return bad bad"],
            &["SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "x"],
            &["SCRIPT", "FLUSH", "WHAT"],
            &["SCRIPT", "FLUSH"],
            &["SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"],
            &["SCRIPT", "KILL"],
            &["SCRIPT", "NOSUCH"],
            &["EVAL_RO", "return redis.call('set', KEYS[1], 1)", "1", "k"],
            &["EVAL_RO", "return redis.call('get', KEYS[1])", "1", "failed"],
            &[
                "FUNCTION",
                "LOAD",
                "#!lua name=lib\nredis.register_function('f', function(keys, args) return {keys[1], args[1], #args} end)",
            ],
            &["FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"],
            &["FUNCTION", "LOAD", "#!lua name=lib2\nredis.register_function('f', function() return 1 end)"],
            &["FUNCTION", "LOAD", "#!lua name=lib3\nreturn 1"],
            &["FUNCTION", "LOAD", "#!lua name=lib3\nredis.call('get', 'x')"],
            &["FUNCTION", "LOAD", "#!lua\nreturn 1"],
            &["FUNCTION", "LOAD", "#!x name=y\nreturn 1"],
            &["FUNCTION", "LOAD", "return 1"],
            &["FUNCTION", "LOAD", "#!lua name=bad-name\nreturn 1"],
            &["FUNCTION", "LOAD", "#!lua name=lib4\nredis.register_function('a b', function() end)"],
            &["FUNCTION", "LOAD", "#!lua name=lib4\nredis.register_function('a')"],
            &[
                "FUNCTION",
                "LOAD",
                "#!lua name=lib4\nredis.register_function{function_name='w', callback=function() return 7 end, flags={'no-writes'}}",
            ],
            &["FCALL", "f", "1", "k", "x", "y"],
            &["FCALL", "F", "1", "k", "x", "y"],
            &[
                "FUNCTION",
                "LOAD",
                "#!lua name=\"quoted\"\nredis.register_function('Q', function() return redis.register_function end)",
            ],
            &["FUNCTION", "LOAD", "#!lua name=more\nredis.register_function('q', function() return 1 end)"],
            &["FUNCTION", "LOAD", "#!lua name=more\nredis.register_function('m', function() return math.floor(1.5) end)"],
            &["FCALL", "q", "0"],
            &["FCALL", "M", "0"],
            &["FUNCTION", "LOAD", "#! name=more\nreturn 1"],
            &["FUNCTION", "DELETE", "quoted"],
            &["FUNCTION", "DELETE", "more"],
            &["FUNCTION", "FLUSH", "what"],
            &["FUNCTION", "FLUSH", "SYNC", "what"],
            &["FUNCTION", "RESTORE", "x", "FLUSH", "what"],
            &["FCALL", "nosuch", "0"],
            &["FCALL", "f", "x"],
            &["FCALL_RO", "f", "0"],
            &["FCALL_RO", "w", "0"],
            &["FUNCTION", "STATS"],
            &["FUNCTION", "LIST", "LIBRARYNAME", "lib", "WITHCODE"],
            &["FUNCTION", "DELETE", "nosuch"],
            &["FUNCTION", "DELETE", "lib"],
            &["FCALL", "f", "0"],
            &["FUNCTION", "FLUSH", "SYNC"],
            &["FUNCTION", "LIST"],
            &["FUNCTION", "RESTORE", "nonsense"],
        ] {
            if let Err(error) = both(&mut theirs, &mut ours, words).await {
                differences.push(error.to_string());
            }
        }
        // What one dumps the other restores.
        let library = "#!lua name=both\nredis.register_function('there', function() return 'and back' end)";
        theirs.ask(&["FUNCTION", "LOAD", library]).await?;
        let Answer::Bulk(Some(payload)) = theirs.ask(&["FUNCTION", "DUMP"]).await? else { anyhow::bail!("no dump") };
        ours.ask_bytes(&[&b"FUNCTION"[..], b"RESTORE", &payload]).await?;
        let again = [&b"FUNCTION"[..], b"RESTORE", &payload];
        let (expected, found) = (theirs.ask_bytes(&again).await?, ours.ask_bytes(&again).await?);
        ensure!(expected == found && matches!(&found, Answer::Error(_)), "redis: {expected:?}, sluice: {found:?}");
        both(&mut theirs, &mut ours, &["FCALL", "there", "0"]).await?;
        let Answer::Bulk(Some(payload)) = ours.ask(&["FUNCTION", "DUMP"]).await? else { anyhow::bail!("no dump") };
        let restored = theirs.ask_bytes(&[&b"FUNCTION"[..], b"RESTORE", &payload, b"FLUSH"]).await?;
        ensure!(restored == Answer::Simple("OK".into()), "{restored:?}");
        both(&mut theirs, &mut ours, &["FCALL", "there", "0"]).await?;
        both(&mut theirs, &mut ours, &["FUNCTION", "FLUSH"]).await?;
    }
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ended_by_a_limit_has_changed_nothing() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("script-memory-limit", "8mb"), ("script-write-limit", "1mb")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    for (script, names) in [
        ("redis.call('set', KEYS[1], 1) while true do end", "script-time-limit"),
        ("redis.call('set', KEYS[1], 1) while true do pcall(function() while true do end end) end", "script-time-limit"),
        ("redis.call('set', KEYS[1], 1) local c = coroutine.wrap(function() while true do end end) c()", "script-time-limit"),
        ("redis.call('set', KEYS[1], 1) while true do pcall(redis.call, 'get', KEYS[1]) end", "script-time-limit"),
        ("redis.call('set', KEYS[1], 1) local s = 'x' while true do s = s .. s end", "script-memory-limit"),
        ("redis.call('set', KEYS[1], 1) local t = {} while true do t[#t + 1] = {} end", "script-memory-limit"),
        ("for i = 1, 1e9 do redis.call('set', KEYS[1], ('x'):rep(100000)) end", "script-write-limit"),
    ] {
        // However slow the machine is, it is the limit named that ends it.
        let time = if names == "script-time-limit" { "300" } else { "60000" };
        ensure!(connection.ask(&["CONFIG", "SET", "script-time-limit", time]).await? == Answer::Simple("OK".into()));
        let answer = connection.ask(&["EVAL", script, "1", "k"]).await?;
        ensure!(matches!(&answer, Answer::Error(text) if text.contains(names)), "{script}: {answer:?}");
        let left = connection.ask(&["EXISTS", "k"]).await?;
        ensure!(left == Answer::Integer(0), "{script} left something");
        ensure!(connection.ask(&["EVAL", "return 'fine'", "0"]).await? == Answer::Bulk(Some(b"fine".to_vec())));
    }
    Ok(())
}

/// Scripts go over all keys with what they themselves have changed.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_see_all_keys_and_their_own_changes_among_them() -> anyhow::Result<()> {
    const SEEN: &str = "redis.call('set', 'new', 1) redis.call('del', 'k5', 'k6') redis.call('pexpire', 'k7', 0) \
                        redis.call('hset', 'hash', 'f', 1) redis.call('set', 'k8', 2) \
                        local found, cursor = {}, '0' \
                        repeat local page = redis.call('scan', cursor, 'count', 7, unpack(ARGV)) cursor = page[1] \
                            for _, key in ipairs(page[2]) do found[#found + 1] = key end \
                        until cursor == '0' \
                        table.sort(found) local all = redis.call('keys', '*') table.sort(all) \
                        local random = redis.call('randomkey') \
                        return {redis.call('dbsize'), all, found, redis.call('exists', random), #redis.call('keys', 'k1?')}";
    let (redis, root) = (RedisServer::start()?, tempfile::tempdir()?);
    redis.client().await?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let (mut theirs, mut ours) = (Connection::open(&redis.address()).await?, Connection::open(&store.address()).await?);
    for number in 0..40 {
        both(&mut theirs, &mut ours, &["SET", &format!("k{number}"), "1"]).await?;
    }
    both(&mut theirs, &mut ours, &["EVAL", SEEN, "0"]).await?;
    both(&mut theirs, &mut ours, &["EVAL", SEEN, "0", "match", "*1*"]).await?;
    both(&mut theirs, &mut ours, &["EVAL", SEEN, "0", "type", "hash"]).await?;
    both(&mut theirs, &mut ours, &["EVAL_RO", "return #redis.call('keys', '*')", "0"]).await?;
    both(
        &mut theirs,
        &mut ours,
        &["EVAL", "redis.call('select', 3) return {redis.call('dbsize'), redis.call('randomkey')}", "0"],
    )
    .await?;
    both(&mut theirs, &mut ours, &["EVAL", "return redis.call('scan', 'x')", "0"]).await?;
    // With what a transaction has changed before the script.
    for words in [&["MULTI"][..], &["SET", "queued", "1"], &["DEL", "k9"], &["EVAL", SEEN, "0"], &["EXEC"]] {
        both(&mut theirs, &mut ours, words).await?;
    }
    // Its time is that of the script.
    ensure!(ours.ask(&["CONFIG", "SET", "script-time-limit", "50"]).await? == Answer::Simple("OK".into()));
    let endless = ours.ask(&["EVAL", "redis.call('set', 'left', 1) while true do redis.call('dbsize') end", "0"]).await?;
    ensure!(matches!(&endless, Answer::Error(text) if text.contains("script-time-limit")), "{endless:?}");
    ensure!(ours.ask(&["EXISTS", "left"]).await? == Answer::Integer(0));
    Ok(())
}

/// What goes deep ends with an error, and the store serves on.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_nest_too_deep_are_refused() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    for (script, expected) in [
        ("local t = {} for i = 1, 2000 do t = {t} end return cjson.encode(t)", "excessive depth"),
        ("cjson.encode_max_depth(1000000) local t = {} for i = 1, 2000 do t = {t} end return cjson.encode(t)", "excessive depth"),
        ("cjson.decode_max_depth(1000000) return cjson.decode(('['):rep(100000))", "too many nested"),
        ("local t = {} for i = 1, 2000 do t = {a = t} end return cjson.encode(t)", "excessive depth"),
        ("return cjson.decode(('['):rep(100000))", "too many nested"),
        ("return cjson.decode(('{\"a\":'):rep(100000))", "too many nested"),
        ("return cmsgpack.unpack(('\\145'):rep(100000))", "Bad data format"),
        ("return string.find(('a'):rep(100000), ('a?'):rep(100000))", "pattern is longer"),
        ("return ('a'):rep(100000):match(('a-'):rep(100000))", "pattern is longer"),
        ("local function f() return 1 + f() end return f()", "stack overflow"),
        ("local s = ('('):rep(100000) return loadstring('return ' .. s)()", "attempt to call"),
    ] {
        let answer = connection.ask(&["EVAL", script, "0"]).await.with_context(|| script.to_owned())?;
        ensure!(matches!(&answer, Answer::Error(text) if text.contains(expected)), "{script}: {answer:?}");
    }
    let nested = "local t = {} for i = 1, 990 do t = {t} end return #cjson.encode(t)";
    ensure!(connection.ask(&["EVAL", nested, "0"]).await? == Answer::Integer(1982));
    let back = "return cjson.encode(cjson.decode(('['):rep(990) .. (']'):rep(990))) ~= nil";
    ensure!(connection.ask(&["EVAL", back, "0"]).await? == Answer::Integer(1));
    let deep = "local t = {} for i = 1, 2000 do t = {t} end return t";
    connection.ask(&["EVAL", deep, "0"]).await?;
    let patterned = "return ('a'):rep(100000):find(('a?'):rep(1000)) ";
    ensure!(connection.ask(&["EVAL", patterned, "0"]).await? == Answer::Integer(1));
    let plain = "return string.find(('a'):rep(3000), ('a'):rep(2500), 1, true)";
    ensure!(connection.ask(&["EVAL", plain, "0"]).await? == Answer::Integer(1));
    Ok(())
}

/// Scripts of several threads that use keys they do not name: none is lost, none waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_several_threads_share_keys_they_do_not_name() -> anyhow::Result<()> {
    const CLIENTS: i64 = 8;
    const CALLS: i64 = 200;
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("io-threads", "3")])?.start().await?;
    let script = "redis.call('incr', 'a' .. ARGV[1]) for i = 1, 5 do redis.call('incr', 'shared' .. i) end \
                  return redis.call('incr', KEYS[1])";
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let address = store.address();
        clients.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for _ in 0..CALLS {
                let answer = connection.ask(&["EVAL", script, "1", "named", &client.to_string()]).await?;
                ensure!(matches!(answer, Answer::Integer(_)), "{answer:?}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let mut connection = Connection::open(&store.address()).await?;
    for key in ["named", "shared1", "shared5"] {
        let found = connection.ask(&["GET", key]).await?;
        ensure!(found == Answer::Bulk(Some((CLIENTS * CALLS).to_string().into_bytes())), "{key}: {found:?}");
    }
    Ok(())
}

/// A script's changes come back together or not at all, and functions are there after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_scripts_whole_and_functions_there() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let mut store = setup.start().await?;
    let library = "#!lua name=lib\nredis.register_function('count', function(keys) for i = 1, 50 do redis.call('incr', 'c' .. i) end return 1 end)";
    for round in 0..5 {
        let mut connection = Connection::open(&store.address()).await?;
        if round == 0 {
            connection.ask(&["FUNCTION", "LOAD", library]).await?;
        }
        let writer = tokio::spawn(async move {
            let mut done = 0;
            while let Ok(answer) = connection.ask(&["FCALL", "count", "0"]).await {
                ensure!(answer == Answer::Integer(1), "{answer:?}");
                done += 1;
            }
            Ok(done)
        });
        tokio::time::sleep(std::time::Duration::from_millis(150 + 40 * round)).await;
        store.kill()?;
        let acknowledged: i64 = writer.await??;
        store = setup.start().await?;
        let mut connection = Connection::open(&store.address()).await?;
        let counts = connection
            .ask(&["EVAL", "local all = {} for i = 1, 50 do all[i] = redis.call('get', 'c' .. i) or '0' end return all", "0"])
            .await?;
        let first = counts.elements().first().context("counts")?.clone();
        ensure!(counts.elements().iter().all(|count| *count == first), "torn: {counts:?}");
        let first: i64 = first.text().context("a number")?.parse()?;
        ensure!(first >= acknowledged, "{first} of {acknowledged} acknowledged are left");
        connection.ask(&["EVAL", "for i = 1, 50 do redis.call('del', 'c' .. i) end", "0"]).await?;
    }
    Ok(())
}
