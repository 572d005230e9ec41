//! All that a decision may read.

use std::net::IpAddr;

use http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::Weekday;

use super::{ClassId, TierId, ZoneId};
use crate::model::{Claims, Host, Opening, Sight, Standing, Wire};

/// The request's own signals. `path` is canonical, without query; `method` as sent.
#[derive(Clone, Copy, Debug)]
pub struct Http<'a> {
    pub method: &'a str,
    pub host: &'a Host,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

/// Values that `explain`, policy tests and the search for what would help put in place of what would be computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    pub class: Option<ClassId>,
    pub tier: Option<TierId>,
    pub weekday: Option<Weekday>,
    pub hour: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub now: Timestamp,
    pub standing: &'a Standing,
    /// Canonical: an IPv4-mapped IPv6 address is IPv4 here.
    pub peer: IpAddr,
    /// `Policy::zone(peer)`, computed once per connection and policy.
    pub zone: Option<ZoneId>,
    pub wire: &'a Wire,
    pub opening: &'a Opening,
    /// Of this wire, these claims and this standing.
    pub sight: &'a Sight,
    pub claims: &'a Claims,
    pub http: Http<'a>,
    pub given: Given,
}
