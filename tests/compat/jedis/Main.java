// Jedis against a single node or a cluster, in both protocols: every family once, pipelines, transactions, scripts, functions, pub/sub and
// blocking reads. On a cluster it then says "moving" and writes on while slots move, until a line arrives; what was acknowledged has to be
// there once. Ends with a message and status 1 where something differs.

import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicBoolean;
import redis.clients.jedis.*;
import redis.clients.jedis.args.*;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.*;
import redis.clients.jedis.util.JedisClusterCRC16;

public class Main {
    static void same(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }

    static void ok(boolean good) {
        if (!good) {
            throw new AssertionError("it does not hold");
        }
    }

    // The client of a cluster has none of its own: it gives the connection of a slot for one.
    static AbstractTransaction transaction(UnifiedJedis client) {
        if (client instanceof RedisClusterClient cluster) {
            return new Transaction(cluster.getConnectionFromSlot(JedisClusterCRC16.getSlot("{k}")), true, true);
        }
        return client.transaction(true);
    }

    static void families(UnifiedJedis client) {
        same(client.set("{k}text", "hello", SetParams.setParams().ex(60)), "OK");
        same(client.get("{k}text"), "hello");
        same(client.get("{k}none"), null);
        ok(client.ttl("{k}text") > 50);
        byte[] bytes = new byte[256];
        for (int at = 0; at < 256; at++) {
            bytes[at] = (byte) at;
        }
        client.set("{k}bytes".getBytes(), bytes);
        ok(Arrays.equals(client.get("{k}bytes".getBytes()), bytes));
        same(client.mset("{k}a", "1", "{k}b", "2"), "OK");
        same(client.mget("{k}a", "{k}b", "{k}none"), Arrays.asList("1", "2", null));
        same(client.incrByFloat("{k}number", 1.5), 1.5);
        same(client.setbit("{k}bits", 7, true), false);
        same(client.bitcount("{k}bits"), 1L);
        same(client.bitfield("{k}bits", "SET", "u8", "0", "200", "GET", "u8", "0"), List.of(1L, 200L));
        same(client.pfadd("{k}seen", "a", "b"), 1L);
        same(client.pfcount("{k}seen"), 2L);
        same(client.hset("{k}hash", Map.of("a", "1", "b", "two")), 2L);
        same(client.hgetAll("{k}hash"), Map.of("a", "1", "b", "two"));
        same(client.hexpire("{k}hash", 60, "a", "none"), List.of(1L, -2L));
        same(client.rpush("{k}list", "a", "b", "c"), 3L);
        same(client.lrange("{k}list", 0, -1), List.of("a", "b", "c"));
        same(client.lmove("{k}list", "{k}other", ListDirection.LEFT, ListDirection.RIGHT), "a");
        same(client.sadd("{k}set", "a", "b"), 2L);
        same(client.sinter("{k}set", "{k}set"), Set.of("a", "b"));
        same(client.zadd("{k}scores", Map.of("a", 1.5, "b", 2.0)), 2L);
        same(client.zrangeWithScores("{k}scores", 0, -1).toString(), "[[a,1.5], [b,2.0]]");
        same(client.zscore("{k}scores", "a"), 1.5);
        same(client.geoadd("{k}places", 13.361389, 38.115556, "Palermo"), 1L);
        same(client.geosearch("{k}places", new GeoCoordinate(13, 38), 100, GeoUnit.KM).size(), 1);
        StreamEntryID id = client.xadd("{k}stream", StreamEntryID.NEW_ENTRY, Map.of("f", "v"));
        same(client.xgroupCreate("{k}stream", "g", new StreamEntryID(0, 0), false), "OK");
        var read = client.xreadGroup("g", "c", XReadGroupParams.xReadGroupParams().count(1), Map.of("{k}stream", StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY));
        same(read.get(0).getValue().get(0).getID(), id);
        same(read.get(0).getValue().get(0).getFields(), Map.of("f", "v"));
        same(client.xack("{k}stream", "g", id), 1L);
        same(client.eval("return redis.call('incrby', KEYS[1], ARGV[1])", List.of("{k}counter"), List.of("15")), 15L);
        String sha = client.scriptLoad("return redis.call('incrby', KEYS[1], ARGV[1])", "{k}counter");
        same(client.evalsha(sha, List.of("{k}counter"), List.of("1")), 16L);
        try {
            client.lpush("{k}text", "x");
            throw new AssertionError("a text was taken for a list");
        } catch (JedisDataException refused) {
            ok(refused.getMessage().startsWith("WRONGTYPE"));
        }
        try (AbstractTransaction transaction = transaction(client)) {
            Response<Long> count = transaction.incr("{k}counter");
            transaction.del("{k}list");
            same(transaction.exec(), List.of(17L, 1L));
            same(count.get(), 17L);
        }
        same(client.del("{k}text"), 1L);
        same(client.restore("{k}copy", 0, client.dump("{k}hash")), "OK");
        same(client.hget("{k}copy", "b"), "two");
        same(client.objectEncoding("{k}hash"), "listpackex");
    }

    // Of one connection: watches, blocking reads, subscribers, functions, scans.
    static void connections(UnifiedJedis client, ExecutorService others) throws Exception {
        try (AbstractTransaction transaction = client.transaction(false)) {
            transaction.watch("{k}counter");
            client.incr("{k}counter");
            transaction.multi();
            transaction.del("{k}counter");
            same(transaction.exec(), null);
        }
        var job = others.submit(() -> client.blpop(10.0, "{k}queue"));
        client.lpush("{k}queue", "job");
        same(job.get().getValue(), "job");
        var heard = new CompletableFuture<String>();
        var subscribed = new CountDownLatch(1);
        var listener = new JedisPubSub() {
            @Override
            public void onSubscribe(String channel, int count) {
                subscribed.countDown();
            }

            @Override
            public void onMessage(String channel, String text) {
                heard.complete(channel + " " + text);
                unsubscribe();
            }
        };
        var listening = others.submit(() -> client.subscribe(listener, "news"));
        ok(subscribed.await(10, TimeUnit.SECONDS));
        same(client.publish("news", "hello"), 1L);
        same(heard.get(10, TimeUnit.SECONDS), "news hello");
        listening.get(10, TimeUnit.SECONDS);
        String library = "#!lua name=mine\nredis.register_function('twice', function(keys, args) return 2 * args[1] end)";
        same(client.functionLoadReplace(library), "mine");
        same(client.fcall("twice", List.of(), List.of("21")), 42L);
        var found = new HashSet<String>();
        String cursor = ScanParams.SCAN_POINTER_START;
        do {
            var page = client.scan(cursor, new ScanParams().match("{k}*").count(5));
            found.addAll(page.getResult());
            cursor = page.getCursor();
        } while (!cursor.equals(ScanParams.SCAN_POINTER_START));
        same((long) found.size(), client.dbSize());
    }

    // Sharded channels go with their slots.
    static void shards(RedisClusterClient client, ExecutorService others) throws Exception {
        var heard = new CompletableFuture<String>();
        var subscribed = new CountDownLatch(1);
        var listener = new JedisShardedPubSub() {
            @Override
            public void onSSubscribe(String channel, int count) {
                subscribed.countDown();
            }

            @Override
            public void onSMessage(String channel, String text) {
                heard.complete(channel + " " + text);
                sunsubscribe();
            }
        };
        var listening = others.submit(() -> client.ssubscribe(listener, "{k}channel"));
        ok(subscribed.await(10, TimeUnit.SECONDS));
        same(client.spublish("{k}channel", "hello"), 1L);
        same(heard.get(10, TimeUnit.SECONDS), "{k}channel hello");
        listening.get(10, TimeUnit.SECONDS);
    }

    static void pipelines(UnifiedJedis client) {
        try (AbstractPipeline pipe = client.pipelined()) {
            var answers = new ArrayList<Response<String>>();
            for (int number = 0; number < 2000; number++) {
                answers.add(pipe.set("key:" + number, String.valueOf(number)));
            }
            pipe.sync();
            ok(answers.stream().allMatch(answer -> answer.get().equals("OK")));
        }
        for (int number = 0; number < 2000; number++) {
            same(client.get("key:" + number), String.valueOf(number));
        }
    }

    static void onTheMove(UnifiedJedis client, ExecutorService others) throws Exception {
        var moving = new AtomicBoolean(true);
        var writers = new ArrayList<Future<Integer>>();
        for (int writer = 0; writer < 8; writer++) {
            int number = writer;
            writers.add(others.submit(() -> {
                int count = 0;
                while (moving.get()) {
                    count++;
                    for (int key = number; key < 64; key += 8) {
                        same(client.incr("moving:" + key), (long) count);
                        same(client.hset("hash:" + key, String.valueOf(count), "x"), 1L);
                    }
                }
                return count;
            }));
        }
        System.out.println("moving");
        new Scanner(System.in).nextLine();
        moving.set(false);
        for (int writer = 0; writer < 8; writer++) {
            int count = writers.get(writer).get();
            ok(count > 0);
            for (int key = writer; key < 64; key += 8) {
                same(client.get("moving:" + key), String.valueOf(count));
                same(client.hlen("hash:" + key), (long) count);
            }
        }
    }

    public static void main(String[] words) throws Exception {
        var address = HostAndPort.from(words[1]);
        ExecutorService others = Executors.newCachedThreadPool();
        try {
            for (var protocol : List.of(RedisProtocol.RESP2, RedisProtocol.RESP3)) {
                var config = DefaultJedisClientConfig.builder().protocol(protocol).clientName("jedis").build();
                if (words[0].equals("cluster")) {
                    try (var client = RedisClusterClient.builder().nodes(Set.of(address)).clientConfig(config).build()) {
                        client.flushDB();
                        families(client);
                        shards(client, others);
                        pipelines(client);
                        if (protocol == RedisProtocol.RESP3) {
                            onTheMove(client, others);
                        }
                    }
                } else {
                    try (var client = RedisClient.builder().hostAndPort(address).clientConfig(config).build()) {
                        client.flushDB();
                        families(client);
                        connections(client, others);
                        pipelines(client);
                    }
                }
            }
        } catch (Throwable error) {
            System.err.println("jedis: " + error);
            error.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }
}
