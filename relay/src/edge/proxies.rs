//! Proxies that speak for others.
//!
//! Owns whom a connection is from when a proxy made it: the header of the PROXY protocol in front of it, and
//! X-Forwarded-For in its request. Both are believed from trusted proxies only: anybody can write them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::EdgeError;

/// The header that a proxy for HTTP adds an address to.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Bytes of a PROXY header before its addresses.
const FIXED: usize = 16;
/// Where in there the length of the rest begins.
const LENGTH: usize = 14;
/// Longest rest in bytes: two addresses of a Unix socket are 216, the rest is for what proxies add (the name asked for by
/// TLS, a checksum, an id of a cloud's endpoint).
const MAX_REST: usize = 2048;

/// The proxies of one relay.
#[derive(Debug, Default)]
pub struct Proxies {
    /// Where they are.
    trusted: Vec<IpNet>,
    /// Whether their connections begin with a header.
    header: bool,
}

impl Proxies {
    /// These networks are trusted; with `header` each connection from there begins with a PROXY header.
    ///
    /// # Errors
    /// [`EdgeError::NoProxy`] where a header is wanted of nobody.
    pub fn new(trusted: Vec<IpNet>, header: bool) -> Result<Self, EdgeError> {
        if header && trusted.is_empty() {
            return Err(EdgeError::NoProxy);
        }
        Ok(Self { trusted, header })
    }

    /// Whether this address is a proxy's.
    #[must_use]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// Whether a connection from there begins with a PROXY header.
    #[must_use]
    pub fn sends_header(&self, address: IpAddr) -> bool {
        self.header && self.is_trusted(address)
    }

    /// Whom a request is from that came from `peer`: the rightmost hop of X-Forwarded-For that is no proxy of ours. What
    /// cannot be read ends the way: then it is the last hop that could.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut last = peer;
        // A proxy adds itself at the end, or in a header after those that are there.
        let mut hops = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .rev()
            .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        while self.is_trusted(last) {
            let Some(hop) = hops.next().and_then(hop) else { break };
            last = hop;
        }
        last
    }
}

/// Reads one hop: an address, an IPv6 one perhaps in brackets, perhaps with a port.
fn hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(bracketed)
        .map(|address| address.to_canonical())
}

/// Reads a PROXY header of version 2 and not a byte more: whom the connection is from, or `None` where it is the proxy's
/// own (a health check) or from no IP address.
pub(super) async fn read_header<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<Option<IpAddr>> {
    let mut fixed = [0; FIXED];
    io.read_exact(&mut fixed).await?;
    // The text of version 1 is refused here, too, before more of it is read.
    if !fixed.starts_with(ppp::v2::PROTOCOL_PREFIX) {
        return Err(malformed("no PROXY header of version 2"));
    }
    let rest = usize::from(u16::from_be_bytes([fixed[LENGTH], fixed[LENGTH + 1]]));
    if rest > MAX_REST {
        return Err(malformed("a PROXY header that is too long"));
    }
    let mut header = fixed.to_vec();
    header.resize(FIXED + rest, 0);
    io.read_exact(&mut header[FIXED..]).await?;
    let header = Header::try_from(header.as_slice()).map_err(|error| malformed(&error.to_string()))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (Command::Proxy, Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
        (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) | (Command::Local, _) => None,
    })
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use ppp::v2::{Builder, IPv4, IPv6, Protocol, Version};

    use super::*;
    use crate::edge::network;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn client(trusted: &str, peer: &str, values: &[&str]) -> String {
        let trusted = trusted.split(' ').map(|text| network(text).expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(FORWARDED_FOR, value);
        }
        let proxies = Proxies::new(trusted, false).expect("proxies");
        proxies.client(address(peer), &headers).to_string()
    }

    #[test]
    fn the_source_is_the_rightmost_hop_that_is_no_proxy() {
        for (peer, values, source) in [
            ("10.0.0.1", vec!["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", vec!["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", vec!["203.0.113.9, 192.0.2.1 ,10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", vec!["203.0.113.9", "192.0.2.1, 10.0.0.3", "10.0.0.2"], "192.0.2.1"),
            ("::ffff:10.0.0.1", vec!["192.0.2.1:4711"], "192.0.2.1"),
            ("10.0.0.1", vec!["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", vec!["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", vec!["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", vec!["::ffff:192.0.2.1"], "192.0.2.1"),
            ("fd00::1", vec!["192.0.2.1"], "192.0.2.1"),
            // All are proxies: the first of them speaks for itself.
            ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", vec![], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.0/8 fd00::/8", peer, &values), source, "{peer} {values:?}");
        }
    }

    #[test]
    fn garbage_is_nobody_and_strangers_are_not_believed() {
        for garbage in ["", ",", "unknown", "192.0.2.1, ", "192.0.2", "[192.0.2.1]", "é", "_hidden"] {
            assert_eq!(client("10.0.0.0/8", "10.0.0.1", &[garbage]), "10.0.0.1", "{garbage:?}");
        }
        // Behind a proxy that is known, what cannot be read is the one that it spoke for.
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["192.0.2.1, x, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.0/8", "198.51.100.7", &["192.0.2.1"]), "198.51.100.7");
    }

    #[test]
    fn a_header_is_wanted_of_somebody() {
        assert!(matches!(Proxies::new(vec![], true), Err(EdgeError::NoProxy)));
        let proxies = Proxies::new(vec![network("10.0.0.0/8").expect("a network")], true).expect("proxies");
        assert!(proxies.sends_header(address("10.1.2.3")) && !proxies.sends_header(address("192.0.2.1")));
    }

    /// What is read of this header, and the byte after it.
    async fn read(mut header: Vec<u8>) -> (io::Result<Option<IpAddr>>, Option<u8>) {
        header.push(0x16);
        let mut io = header.as_slice();
        let told = read_header(&mut io).await;
        (told, io.first().copied())
    }

    fn header(command: Command, addresses: impl Into<Addresses>, extra: usize) -> Vec<u8> {
        let mut header = Builder::with_addresses(Version::Two | command, Protocol::Stream, addresses);
        if extra > 0 {
            header = header.write_tlv(0xEE_u8, vec![0; extra].as_slice()).expect("it fits");
        }
        header.build().expect("a header")
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_last_byte_and_no_further() {
        let four = || IPv4::new([192, 0, 2, 1], [10, 0, 0, 1], 4711, 443);
        let six = IPv6::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [0; 8], 4711, 443);
        for (header, source) in [
            (header(Command::Proxy, four(), 0), Some("192.0.2.1")),
            (header(Command::Proxy, four(), 500), Some("192.0.2.1")),
            (header(Command::Proxy, six, 0), Some("2001:db8::1")),
            (header(Command::Local, four(), 0), None),
            (header(Command::Proxy, Addresses::Unspecified, 20), None),
        ] {
            let (told, next) = read(header).await;
            assert_eq!(told.expect("a header").map(|a| a.to_string()).as_deref(), source);
            assert_eq!(next, Some(0x16));
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let good = header(Command::Proxy, IPv4::new([192, 0, 2, 1], [10, 0, 0, 1], 4711, 443), 0);
        let mut version = good.clone();
        version[12] = 0x11;
        let mut family = good.clone();
        family[13] = 0x91;
        let mut short = good.clone();
        short[15] = 4;
        let mut cut = good.clone();
        cut.truncate(20);
        cut[15] = 200;
        let long = header(Command::Proxy, IPv4::new([192, 0, 2, 1], [10, 0, 0, 1], 4711, 443), MAX_REST);
        for bad in [
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(),
            b"GET /ws HTTP/1.1\r\nHost: relay\r\n\r\n".to_vec(),
            version,
            family,
            short,
            cut,
            long,
        ] {
            assert!(read(bad.clone()).await.0.is_err(), "{bad:?}");
        }
    }
}
