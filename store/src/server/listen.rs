//! Listening sockets.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::Settings;

/// Binds a port on every address of the list. An address with a leading `-` may be missing on this machine; none at all is an error.
pub(super) fn bind(what: &str, addresses: &[String], port: u16, backlog: u32) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for written in addresses {
        let (optional, address) = written.strip_prefix('-').map_or((false, written.as_str()), |address| (true, address));
        match bind_one(address, port, backlog) {
            Ok(listener) => listeners.push(listener),
            Err(error) if optional && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                anyhow::bail!("{what} {port} on {address} is in use by another process: stop it, or set {what} to another number")
            }
            Err(error) => anyhow::bail!("{what} {port} on {address} cannot be listened on: {error}"),
        }
    }
    anyhow::ensure!(!listeners.is_empty(), "{what} {port}: none of its addresses exists on this machine");
    Ok(listeners)
}

fn bind_one(address: &str, port: u16, backlog: u32) -> io::Result<TcpListener> {
    let host = match address {
        "*" => "0.0.0.0",
        "::*" => "::",
        other => other,
    };
    let ip = host.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it is not an IP address"))?;
    let address = SocketAddr::new(ip, port);
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Sets what every connection gets.
pub(super) fn prepare(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if settings.tcp_keepalive > 0 {
        let seconds = Duration::from_secs(u64::from(settings.tcp_keepalive));
        SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(seconds).with_interval(seconds))?;
    }
    Ok(())
}
