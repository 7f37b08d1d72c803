"""redis-py's cluster client against two nodes: it finds them, follows the slots, and spreads multi-key commands.

cluster.py PORT [OPTIONS]: further options of the connections as JSON, such as those of TLS."""

import json
import sys

from redis.cluster import RedisCluster

options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
client = RedisCluster(host="127.0.0.1", port=int(sys.argv[1]), decode_responses=True, **options)
assert len(client.get_primaries()) == 2
for number in range(2000):
    assert client.set(f"key:{number}", number)
assert all(client.get(f"key:{number}") == str(number) for number in range(2000))
assert client.mset({"{tag}a": 1, "{tag}b": 2}) and client.mget("{tag}a", "{tag}b") == ["1", "2"]
assert client.mset_nonatomic({f"spread:{number}": number for number in range(20)})
assert sum(client.dbsize(target_nodes=RedisCluster.PRIMARIES) for _ in range(1)) == 2022
assert len(set(client.scan_iter(count=100))) == 2022
try:
    client.mget("a", "b")
    raise AssertionError("keys of two slots were read together")
except Exception as error:
    assert "slot" in str(error).lower(), error
assert client.cluster_countkeysinslot(client.keyslot("{tag}a")) == 2
info = client.cluster_info(target_nodes=RedisCluster.RANDOM)
assert info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384", info

# Whichever node a message is published on, and whichever a subscriber is connected to.
for channel in ("news", "weather", "sports"):
    hearer = client.pubsub(ignore_subscribe_messages=True)
    hearer.subscribe(channel)
    hearer.get_message(timeout=10)
    for node in client.get_primaries():
        client.execute_command("PUBLISH", channel, node.name, target_nodes=node)
    heard = set()
    while len(heard) < 2:
        message = hearer.get_message(timeout=30)
        assert message, f"only {heard} reached the subscriber of {channel}"
        heard.add(message["data"])
    assert heard == {node.name for node in client.get_primaries()}, heard
    hearer.close()
