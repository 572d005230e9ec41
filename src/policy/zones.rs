//! Which named network an address is in.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;
use ipnet::IpNet;

use super::ZoneId;
use super::draft::Network;

/// Ranges by their prefix length, the longest first: the narrowest range that holds an address is the first one found.
#[derive(Debug, Default)]
pub struct Zones(Vec<(u8, HashMap<IpNet, ZoneId, RandomState>)>);

impl Zones {
    /// Of two networks with the same range the first stays.
    pub fn new(networks: &[Network]) -> Self {
        let mut lengths: Vec<(u8, HashMap<IpNet, ZoneId, RandomState>)> = Vec::new();
        for (index, network) in (0..).zip(networks) {
            for range in &network.ranges {
                let at = lengths.partition_point(|(length, _)| *length > range.prefix_len());
                if lengths.get(at).is_none_or(|(length, _)| *length != range.prefix_len()) {
                    lengths.insert(at, (range.prefix_len(), HashMap::default()));
                }
                if let Some((_, ranges)) = lengths.get_mut(at) {
                    ranges.entry(range.trunc()).or_insert(ZoneId(index));
                }
            }
        }
        Self(lengths)
    }

    pub fn zone(&self, peer: IpAddr) -> Option<ZoneId> {
        self.0.iter().find_map(|(length, ranges)| ranges.get(&IpNet::new(peer, *length).ok()?.trunc()).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_matching_network_wins() {
        let network = |name: &str, ranges: &[&str]| Network {
            name: name.to_owned(),
            ranges: ranges.iter().map(|range| range.parse().expect("a range")).collect(),
            syn_is_direct: false,
        };
        let zones = Zones::new(&[
            network("all", &["0.0.0.0/0"]),
            network("office", &["10.0.0.0/8", "2001:db8::/32"]),
            network("lab", &["10.1.0.0/16", "2001:db8:1::/48"]),
            network("host", &["10.1.2.3/32"]),
            network("twin", &["10.1.0.0/16"]),
        ]);
        for (peer, zone) in [
            ("192.0.2.1", Some(0)),
            ("10.2.0.1", Some(1)),
            ("10.1.0.1", Some(2)),
            ("10.1.2.3", Some(3)),
            ("2001:db8::1", Some(1)),
            ("2001:db8:1::1", Some(2)),
            ("2001:db9::1", None),
        ] {
            assert_eq!(zones.zone(peer.parse().expect("an address")).map(|z| z.0), zone, "{peer}");
        }
    }
}
