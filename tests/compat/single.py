"""redis-py against one node: both protocols, pipelines, the commands there are. Ends with an assertion where something differs."""

import sys

import redis

port = int(sys.argv[1])
for protocol in (2, 3):
    client = redis.Redis(port=port, password="secret", protocol=protocol, client_name="single", decode_responses=True)
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
    binary = redis.Redis(port=port, password="secret", protocol=protocol)
    every_byte = bytes(range(256))
    assert binary.set(every_byte, every_byte) and binary.get(every_byte) == every_byte
try:
    redis.Redis(port=port, password="wrong").ping()
    raise AssertionError("a wrong password was taken")
except redis.AuthenticationError:
    pass
