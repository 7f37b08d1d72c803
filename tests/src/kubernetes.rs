//! A real Kubernetes, driven as a person would: kubectl, helm, manifests. What the demo and the Kubernetes tests share.

mod helm;
mod kubectl;
mod load;
mod shards;
mod wait;

pub use helm::{ImageReferences, Release, helm};
pub use kubectl::{Namespace, get, get_raw, kubectl, kubectl_with_input, post_raw};
pub use load::{LoadPod, PhaseFigures, Verdict};
pub use shards::{Settled, ShardedCluster, manifest};
pub use wait::{wait_for, wait_until};
