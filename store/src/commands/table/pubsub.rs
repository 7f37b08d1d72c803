//! Publishing and subscribing.

use super::{ALL, CHANNEL, CHANNELS, NO_KEYS, ONE, PUBLISH, SUBCOMMANDS, SUBSCRIBE};
use crate::commands::pubsub;

commands! {
    "pubsub";
    "subscribe"   -2 SUBSCRIBE NO_KEYS "2.0.0" "O(N) of the channels" Now(pubsub::subscribe) "Hears the messages of channels.";
    "unsubscribe" -1 SUBSCRIBE NO_KEYS "2.0.0" "O(N) of the channels" Now(pubsub::unsubscribe) "Hears channels no more; without names: any.";
    "psubscribe"  -2 SUBSCRIBE NO_KEYS "2.0.0" "O(N) of the patterns" Now(pubsub::psubscribe) "Hears the messages of channels whose names match.";
    "punsubscribe" -1 SUBSCRIBE NO_KEYS "2.0.0" "O(N) of the patterns" Now(pubsub::punsubscribe) "Hears patterns no more; without names: any.";
    "ssubscribe"  -2 CHANNELS ALL "7.0.0" "O(N) of the channels" Now(pubsub::ssubscribe) "Hears the messages of shard channels: those of one slot.";
    "sunsubscribe" -1 CHANNELS ALL "7.0.0" "O(N) of the channels" Now(pubsub::sunsubscribe) "Hears shard channels no more; without names: any.";
    "publish"      3 PUBLISH NO_KEYS "2.0.0" "O(N+M) of the subscribers and all patterns" Now(pubsub::publish) "Sends a message to a channel, on every node of a cluster; says how many clients of this one hear it.";
    "spublish"     3 CHANNEL ONE "7.0.0" "O(N) of the subscribers" Now(pubsub::spublish) "Sends a message to a shard channel; says how many hear it.";
    "pubsub"      -2 SUBCOMMANDS NO_KEYS "2.8.0" "O(N) of the channels" Now(pubsub::pubsub) "CHANNELS, NUMSUB, NUMPAT, SHARDCHANNELS, SHARDNUMSUB.";
}
