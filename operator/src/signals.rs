//! Flags one part of the process raises for others.

use tokio::sync::watch;

/// Waits until the flag is as wanted; a flag nobody can change any more counts as that.
pub async fn until(flag: &mut watch::Receiver<bool>, wanted: bool) {
    // The value is not kept: its guard must not live across an await.
    let _ = flag.wait_for(|value| *value == wanted).await;
}
