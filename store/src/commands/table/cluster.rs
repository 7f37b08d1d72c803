//! The cluster.

use super::{CONNECTION, NO_KEYS, PLANE, SUBCOMMANDS};
use crate::commands::{client, cluster, clusterx};

commands! {
    "cluster";
    "readonly"     1 CONNECTION NO_KEYS "3.0.0" "O(1)" Now(client::readonly) "Allows reads from replicas; there are none.";
    "asking"       1 CONNECTION NO_KEYS "3.0.0" "O(1)" Now(client::readonly) "Allows a command of a slot that is being moved here; it waits for the move without that.";
    "readwrite"    1 CONNECTION NO_KEYS "3.0.0" "O(1)" Now(client::readonly) "Ends READONLY.";
    "cluster"     -2 SUBCOMMANDS  NO_KEYS "3.0.0" "O(N) of the nodes" Now(cluster::cluster) "SLOTS, SHARDS, NODES, INFO, MYID, KEYSLOT, COUNTKEYSINSLOT, GETKEYSINSLOT, REPLICAS, LINKS.";
    "clusterx"    -2 PLANE NO_KEYS "kvrocks" "see the subcommands" Later(clusterx::clusterx) "What operator, peers and cluster tools say.";
}
