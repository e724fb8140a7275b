//! Where a broker is.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

/// The port of a server that is named without one, as librdkafka has it.
const DEFAULT_PORT: u16 = 9092;

/// A broker's host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The addresses of a name that are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Address {
    /// The addresses in `HOST:PORT,HOST:PORT`. Each may have a protocol before it (`SSL://`), which librdkafka takes too.
    pub(super) fn list(servers: &str) -> Result<Vec<Self>, String> {
        servers.split(',').map(str::trim).filter(|server| !server.is_empty()).map(Self::parse).collect()
    }

    fn parse(server: &str) -> Result<Self, String> {
        let place = server.split_once("://").map_or(server, |(_, place)| place).trim_end_matches('/');
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            // More than one colon is an address of version 6 without a port.
            None if place.matches(':').count() > 1 => (place, None),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port =
            port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| format!("{port:?} in {server:?} is no port")))?;
        // librdkafka takes a server without a host for this machine.
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Self { host: host.to_owned(), port })
    }

    /// All addresses that the name stands for. Waits for the name service, which has its own time limits.
    pub(super) fn resolve(&self, family: Family) -> io::Result<Vec<SocketAddr>> {
        let wanted = |address: &SocketAddr| match family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        };
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.filter(wanted).collect())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_librdkafka_reads_them() {
        let read = |servers| Address::list(servers).unwrap().iter().map(Address::to_string).collect::<Vec<_>>();
        assert_eq!(read("a:1, b ,SSL://c:2/,"), ["a:1", "b:9092", "c:2"]);
        assert_eq!(read("[::1]:9093,[fe80::1],::1"), ["[::1]:9093", "[fe80::1]:9092", "[::1]:9092"]);
        assert_eq!(read(":9094"), ["localhost:9094"]);
        assert!(Address::list("a:port").unwrap_err().contains("port"));
    }

    #[test]
    fn a_name_stands_for_addresses_of_the_family_that_is_asked_for() {
        let local = Address { host: "127.0.0.1".to_owned(), port: 1 };
        assert_eq!(local.resolve(Family::Any).unwrap().len(), 1);
        assert_eq!(local.resolve(Family::V4).unwrap().len(), 1);
        assert_eq!(local.resolve(Family::V6).unwrap(), []);
    }
}
