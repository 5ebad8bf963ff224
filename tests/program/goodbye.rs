//! An end that closes in the moment in which its owner sees an item has given its receipt.

use crate::fixture::world::{Via, World};

/// How often it is tried: the moment is short.
const ROUNDS: usize = 12;

#[test]
fn what_was_seen_before_a_close_counts_as_delivered() {
    for mount in ["fuse", "dir"] {
        for _ in 0..ROUNDS {
            let world = World::new();
            let mut pair = world.pair_on(Via::Direct, mount);
            pair.host.put("last.msg", "the last word");
            pair.peer.text("the last word");
            pair.peer.ctl("close now");
            pair.peer.finish().well();
            pair.host.status("peer_closed");
            pair.host.ctl("close");
            pair.host.finish().well();
        }
    }
}
