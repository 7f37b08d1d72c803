// ioredis against a single node or a cluster, in both protocols: every family once, pipelines, transactions, scripts, functions, pub/sub and
// blocking reads. On a cluster it then says "moving" and writes on while slots move, until a line arrives; what was acknowledged has to be
// there once. Ends with a message and status 1 where something differs.
"use strict";
const { deepStrictEqual: same, ok, rejects } = require("assert");
const readline = require("readline");
const { Redis, Cluster } = require("ioredis");

const [mode, address] = process.argv.slice(2);
const [host, port] = [address.slice(0, address.lastIndexOf(":")), Number(address.slice(address.lastIndexOf(":") + 1))];

function connect(protocol) {
  if (mode === "cluster") return new Cluster([{ host, port }], { redisOptions: { protocol }, shardedSubscribers: true });
  return new Redis({ host, port, protocol });
}

async function families(client) {
  same(await client.set("{k}text", "hello", "EX", 60), "OK");
  same(await client.get("{k}text"), "hello");
  same(await client.get("{k}none"), null);
  ok((await client.ttl("{k}text")) > 50);
  same(await client.getBuffer("{k}text"), Buffer.from("hello"));
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await client.set("{k}bytes", bytes);
  same(await client.getBuffer("{k}bytes"), bytes);
  same(await client.mset("{k}a", 1, "{k}b", 2), "OK");
  same(await client.mget("{k}a", "{k}b", "{k}none"), ["1", "2", null]);
  same(await client.incrbyfloat("{k}number", 1.5), "1.5");
  same(await client.setbit("{k}bits", 7, 1), 0);
  same(await client.bitcount("{k}bits"), 1);
  same(await client.bitfield("{k}bits", "SET", "u8", 0, 200, "GET", "u8", 0), [1, 200]);
  same(await client.pfadd("{k}seen", "a", "b"), 1);
  same(await client.pfcount("{k}seen"), 2);
  same(await client.hset("{k}hash", { a: 1, b: "two" }), 2);
  same(await client.hgetall("{k}hash"), { a: "1", b: "two" });
  same(await client.call("HEXPIRE", "{k}hash", 60, "FIELDS", 2, "a", "none"), [1, -2]);
  same(await client.rpush("{k}list", "a", "b", "c"), 3);
  same(await client.lrange("{k}list", 0, -1), ["a", "b", "c"]);
  same(await client.lmove("{k}list", "{k}other", "LEFT", "RIGHT"), "a");
  same(await client.sadd("{k}set", "a", "b"), 2);
  same((await client.sinter("{k}set", "{k}set")).sort(), ["a", "b"]);
  same(await client.zadd("{k}scores", 1.5, "a", 2, "b"), 2);
  same((await client.zrange("{k}scores", 0, -1, "WITHSCORES")).map(String), ["a", "1.5", "b", "2"]);
  same(Number(await client.zscore("{k}scores", "a")), 1.5);
  same(await client.geoadd("{k}places", 13.361389, 38.115556, "Palermo"), 1);
  same((await client.geosearch("{k}places", "FROMLONLAT", 13, 38, "BYRADIUS", 100, "km")).length, 1);
  const id = await client.xadd("{k}stream", "*", "f", "v");
  same(await client.xgroup("CREATE", "{k}stream", "g", "0"), "OK");
  same(await client.xreadgroup("GROUP", "g", "c", "COUNT", 1, "STREAMS", "{k}stream", ">"), [["{k}stream", [[id, ["f", "v"]]]]]);
  same(await client.xack("{k}stream", "g", id), 1);
  same(await client.eval("return redis.call('incrby', KEYS[1], ARGV[1])", 1, "{k}counter", 5), 5);
  client.defineCommand("raise", { numberOfKeys: 1, lua: "return redis.call('incrby', KEYS[1], ARGV[1])" });
  same(await client.raise("{k}counter", 5), 10);
  same(await client.raise("{k}counter", 5), 15);
  same(await client.multi().incr("{k}counter").del("{k}list").exec(), [[null, 16], [null, 1]]);
  const failed = await client.multi().incr("{k}counter").incr("{k}text").exec();
  ok(failed[0][1] === 17 && /not an integer/.test(failed[1][0].message));
  await rejects(client.lpush("{k}text", "x"), /WRONGTYPE/);
  same(await client.del("{k}text", "{k}none"), 1);
  same(await client.restore("{k}copy", 0, await client.dumpBuffer("{k}hash")), "OK");
  same(await client.hget("{k}copy", "b"), "two");
  same(await client.call("OBJECT", "ENCODING", "{k}hash"), "listpackex");
}

// Of one connection: watches, blocking reads, subscribers, functions, scans.
async function connections(client) {
  same(await client.watch("{k}counter"), "OK");
  await client.incr("{k}counter");
  same(await client.multi().del("{k}counter").exec(), null);
  const [waiting, listener] = [client.duplicate(), client.duplicate()];
  const job = waiting.blpop("{k}queue", 10);
  await client.lpush("{k}queue", "job");
  same(await job, ["{k}queue", "job"]);
  same(await listener.subscribe("news"), 1);
  const heard = new Promise((resolve) => listener.once("message", (channel, text) => resolve([channel, text])));
  same(await client.publish("news", "hello"), 1);
  same(await heard, ["news", "hello"]);
  const library = "#!lua name=mine\nredis.register_function('twice', function(keys, args) return 2 * args[1] end)";
  same(await client.function("LOAD", "REPLACE", library), "mine");
  same(await client.fcall("twice", 0, 21), 42);
  const found = new Set();
  for await (const keys of client.scanStream({ match: "{k}*", count: 5 })) keys.forEach((key) => found.add(key));
  same(found.size, await client.dbsize());
  waiting.disconnect();
  listener.disconnect();
}

// Sharded channels go with their slots.
async function shards(client) {
  const heard = new Promise((resolve) => client.once("smessage", (channel, text) => resolve([channel, text])));
  await client.ssubscribe("{k}channel");
  same(await client.spublish("{k}channel", "hello"), 1);
  same(await heard, ["{k}channel", "hello"]);
  await client.sunsubscribe("{k}channel");
}

async function pipelines(client) {
  // Of one slot each: what a pipeline of this client may hold on a cluster.
  for (let batch = 0; batch < 20; batch++) {
    const pipe = client.pipeline();
    for (let number = 0; number < 100; number++) pipe.set(`{batch${batch}}:${number}`, number);
    ok((await pipe.exec()).every(([error, reply]) => error === null && reply === "OK"));
  }
  for (let batch = 0; batch < 20; batch++) {
    const keys = Array.from({ length: 100 }, (_, number) => `{batch${batch}}:${number}`);
    same(await client.mget(keys), keys.map((_, number) => String(number)));
  }
}

async function onTheMove(client) {
  let moving = true;
  const input = readline.createInterface({ input: process.stdin });
  input.once("line", () => { moving = false; input.close(); });
  console.log("moving");
  const counts = new Array(64).fill(0);
  while (moving) {
    await Promise.all(counts.map(async (_, number) => {
      counts[number] = counts[number] + 1;
      same(await client.incr(`moving:${number}`), counts[number]);
      same(await client.hset(`hash:${number}`, counts[number], "x"), 1);
      const done = await client.multi().set(`{t${number}}a`, counts[number]).get(`{t${number}}a`).exec();
      same(done, [[null, "OK"], [null, String(counts[number])]]);
    }));
  }
  for (let number = 0; number < counts.length; number++) {
    same(await client.get(`moving:${number}`), String(counts[number]));
    same(await client.hlen(`hash:${number}`), counts[number]);
    ok(counts[number] > 0);
  }
}

(async () => {
  for (const protocol of [2, 3]) {
    const client = connect(protocol);
    const nodes = mode === "cluster" ? (await client.info(), client.nodes("master")) : [client];
    await Promise.all(nodes.map((node) => node.flushdb()));
    await families(client);
    await (mode === "cluster" ? shards(client) : connections(client));
    await pipelines(client);
    if (mode === "cluster" && protocol === 3) await onTheMove(client);
    client.disconnect();
  }
})().catch((error) => {
  console.error("ioredis:", error.stack);
  process.exit(1);
});
