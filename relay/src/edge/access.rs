//! Which networks are served.
//!
//! Owns the two lists and how a network is written. Does not know where an address came from.

use std::net::IpAddr;

use ipnet::IpNet;

/// The networks that are served and those that are not.
#[derive(Debug, Default)]
pub struct Access {
    /// Only these; none is all.
    allow: Vec<IpNet>,
    /// Not these, whatever `allow` says.
    deny: Vec<IpNet>,
}

impl Access {
    /// These networks and not those.
    #[must_use]
    pub const fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny }
    }

    /// Whether this address is served.
    #[must_use]
    pub fn serves(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// Reads a network as operators write them: `192.0.2.0/24`, or one address.
///
/// # Errors
/// What to write instead.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let read = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    read.ok_or_else(|| "a network or an address, such as 192.0.2.0/24, 2001:db8::/32 or 192.0.2.7".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|text| network(text).expect("a network")).collect()
    }

    fn serves(allow: &str, deny: &str, address: &str) -> bool {
        Access::new(list(allow), list(deny)).serves(address.parse().expect("an address"))
    }

    #[test]
    fn denied_wins_and_allowed_means_nobody_else() {
        for (allow, deny, address, served) in [
            ("", "", "192.0.2.1", true),
            ("192.0.2.0/24", "", "192.0.2.1", true),
            ("192.0.2.0/24", "", "::ffff:192.0.2.1", true),
            ("192.0.2.0/24", "", "198.51.100.1", false),
            ("192.0.2.0/24", "", "2001:db8::1", false),
            ("192.0.2.0/24 2001:db8::/32", "", "2001:db8::1", true),
            ("192.0.2.0/24", "192.0.2.7", "192.0.2.7", false),
            ("192.0.2.0/24", "192.0.2.7", "192.0.2.8", true),
            ("", "2001:db8::/64", "2001:db8::99", false),
            ("", "0.0.0.0/0", "2001:db8::99", true),
        ] {
            assert_eq!(serves(allow, deny, address), served, "+{allow} -{deny} {address}");
        }
    }

    #[test]
    fn a_network_is_written_as_usual() {
        assert_eq!(network(" 192.0.2.7 ").expect("one address").prefix_len(), 32);
        assert_eq!(network("2001:db8::1").expect("one address").prefix_len(), 128);
        for bad in ["", "192.0.2.0/33", "192.0.2", "example.org", "192.0.2.0-192.0.2.9", "[::1]"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
