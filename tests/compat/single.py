"""redis-py against one node: both protocols, pipelines, the commands there are. Ends with an assertion where something differs.

single.py PORT [OPTIONS]: further options of the connection as JSON, such as those of TLS."""

import json
import sys

import redis

port = int(sys.argv[1])
options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
for protocol in (2, 3):
    client = redis.Redis(port=port, **options, password="secret", protocol=protocol, client_name="single", decode_responses=True)
    assert client.ping()
    assert client.client_getname() == "single"
    client.flushdb()
    assert client.set("greeting", "hello", ex=100) and 90 < client.ttl("greeting") <= 100
    assert client.set("greeting", "again", nx=True) is None
    assert client.set("greeting", "again", get=True) == "hello"
    assert client.incrby("number", 41) == 41 and client.incr("number") == 42 and client.decr("number") == 41
    assert client.append("text", "ab") == 2 and client.append("text", "cd") == 4 and client.strlen("text") == 4
    assert client.mset({"a": "1", "b": "2"}) and client.mget("a", "b", "none") == ["1", "2", None]
    assert client.exists("a", "b", "none") == 2 and client.delete("a", "none") == 1
    assert client.pexpire("b", 5000) and 0 < client.pttl("b") <= 5000 and client.persist("b") and client.ttl("b") == -1
    with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"key:{number}", number)
        assert all(pipe.execute())
    assert len(set(client.scan_iter(match="key:*", count=50))) == 1000
    assert client.dbsize() == 1004
    assert client.info("persistence")["wal"] == "yes"
    assert client.config_get("sync") == {"sync": "everysec"}
    try:
        client.incr("text")
        raise AssertionError("a text was incremented")
    except redis.ResponseError as error:
        assert "not an integer" in str(error)
    assert client.hset("hash", mapping={"a": 1, "b": "two"}) == 2 and client.hgetall("hash") == {"a": "1", "b": "two"}
    assert client.rpush("list", "a", "b", "c") == 3 and client.lrange("list", 0, -1) == ["a", "b", "c"]
    assert client.sadd("set", "a", "b") == 2 and client.smembers("set") == {"a", "b"}
    assert client.zadd("scores", {"a": 1.5, "b": 2}) == 2
    assert [tuple(pair) for pair in client.zrange("scores", 0, -1, withscores=True)] == [("a", 1.5), ("b", 2.0)]
    entry = client.xadd("stream", {"field": "value"})
    assert client.xgroup_create("stream", "group", 0)
    read = client.xreadgroup("group", "me", {"stream": ">"})
    assert str(entry) in str(read) and client.xack("stream", "group", entry) == 1
    assert client.pfadd("seen", "a", "b") and client.pfcount("seen") == 2
    assert client.geoadd("places", (13.361389, 38.115556, "Palermo")) == 1 and len(client.geopos("places", "Palermo")) == 1
    assert client.setbit("bits", 7, 1) == 0 and client.bitcount("bits") == 1
    script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert script(keys=["counter"], args=[5]) == 5 and script(keys=["counter"], args=[5]) == 10
    with client.pipeline() as pipe:
        pipe.watch("counter")
        pipe.multi()
        assert pipe.incr("counter").delete("list").execute() == [11, 1]
        pipe.watch("counter")
        client.incr("counter")
        pipe.multi()
        try:
            pipe.delete("counter").execute()
            raise AssertionError("a watched key had changed")
        except redis.WatchError:
            pass
    assert client.blpop(["none"], timeout=0.05) is None
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("news")
    assert listener.get_message(timeout=5) is None
    assert client.publish("news", "hello") == 1
    while (message := listener.get_message(timeout=5)) is None:
        pass
    assert message["data"] == "hello"
    listener.close()
    payload = redis.Redis(port=port, **options, password="secret", protocol=protocol).dump("hash")
    assert client.restore("restored", 0, payload) and client.hget("restored", "b") == "two"
    assert client.object("encoding", "hash") == "listpack"
    binary = redis.Redis(port=port, **options, password="secret", protocol=protocol)
    every_byte = bytes(range(256))
    assert binary.set(every_byte, every_byte) and binary.get(every_byte) == every_byte
try:
    redis.Redis(port=port, **options, password="wrong").ping()
    raise AssertionError("a wrong password was taken")
except redis.AuthenticationError:
    pass
