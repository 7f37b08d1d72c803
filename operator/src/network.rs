//! How the operator reaches nodes. Its own calls go to the pod's current address, so that a name cached somewhere never leads them
//! to another pod; whether names lead where they should is asked separately, before anybody is sent there.

use std::{net::IpAddr, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use sluice_topology::{
    admin::{AdminClient, AdminError, AdminTimeouts},
    tls::ClientTls,
};

/// A node as the operator reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Address of the pod.
    pub ip: String,
    /// Its DNS name, as clients and peers use it.
    pub host: String,
    /// Port of the admin plane.
    pub admin_port: u16,
}

/// The way to nodes; tests put their own in its place.
pub trait Network: Send + Sync + 'static {
    /// Address and port to connect to for that node's admin plane.
    fn admin_endpoint(&self, node: &NodeAddress) -> (String, u16);

    /// Whether the node's name leads to its address, and nowhere else.
    fn name_leads_to(&self, node: NodeAddress) -> BoxFuture<'static, bool>;
}

/// The network of a Kubernetes cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodNetwork;

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

impl Network for PodNetwork {
    fn admin_endpoint(&self, node: &NodeAddress) -> (String, u16) {
        (node.ip.clone(), node.admin_port)
    }

    fn name_leads_to(&self, node: NodeAddress) -> BoxFuture<'static, bool> {
        async move {
            let Ok(wanted) = node.ip.parse::<IpAddr>() else { return false };
            // The trailing dot keeps the resolver from trying the search domains of the operator's own pod.
            let name = format!("{}.", node.host);
            match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.as_str(), node.admin_port))).await {
                Ok(Ok(addresses)) => {
                    let found: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
                    !found.is_empty() && found.iter().all(|address| *address == wanted)
                }
                Ok(Err(_)) | Err(_) => false,
            }
        }
        .boxed()
    }
}

/// Time-outs of the operator's calls: short, for one slow node must not hold a reconcile.
pub const ADMIN_TIMEOUTS: AdminTimeouts = AdminTimeouts { connect: Duration::from_secs(2), answer: Duration::from_secs(5) };

/// What nodes of a cluster let the operator in for.
#[derive(Clone)]
pub struct Access {
    /// The admin password.
    pub password: String,
    /// What is spoken with them; `None`: in the clear.
    pub tls: Option<ClientTls>,
}

/// Connects to a node's admin plane. Dialled is an address; the certificate has to have the node's name.
pub async fn connect(network: &dyn Network, node: &NodeAddress, access: &Access) -> Result<AdminClient, AdminError> {
    let (host, port) = network.admin_endpoint(node);
    let tls = access.tls.as_ref().map(|tls| tls.named(&node.host));
    AdminClient::connect(&host, port, Some(&access.password), tls.as_ref(), ADMIN_TIMEOUTS).await
}
