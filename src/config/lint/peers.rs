//! Whoever is believed about clients: more of them than can be meant, or none.

use ipnet::IpNet;

use super::Whole;
use crate::config::obj::Obj;
use crate::config::report::{Findings, Place};
use crate::config::yaml::short;
use crate::config::{shapes, units};

pub fn peers(whole: Whole<'_>, out: &mut Findings) {
    for listener in whole.main.objects("listeners", &shapes::LISTENER) {
        let balancers: Vec<IpNet> = ranges(listener.object("proxy_protocol", &shapes::PROXY_PROTOCOL)).map(|(_, net)| net).collect();
        for (place, net) in ranges(listener.object("forwarded", &shapes::FORWARDED)) {
            let networks = &whole.policy.networks;
            let within = networks.iter().find(|named| named.ranges.iter().any(|range| *range != net && net.contains(range)));
            if let Some(named) = within {
                let entry = whole.main.entries("networks").iter().find(|entry| entry.key == named.name);
                out.caution(
                    place,
                    format!(
                        "`{net}` is wider than the network `{}`: whoever is there may speak for any client, and for any device",
                        short(&named.name)
                    ),
                    entry.map(|entry| (entry.key_place, "that network")),
                );
            }
            if balancers.iter().any(|balancer| balancer.contains(&net)) {
                out.warn(
                    place,
                    format!(
                        "`{net}` is in `proxy_protocol.trusted`: compared is the address that the PROXY header names, so that nobody here is \
                         believed but on connections of the balancer's own"
                    ),
                );
            }
        }
    }
}

fn ranges<'a>(obj: Obj<'a>) -> impl Iterator<Item = (Place, IpNet)> + use<'a> {
    obj.items("trusted").iter().filter_map(|node| Some((node.place, units::network(node.text()?).ok()?)))
}
