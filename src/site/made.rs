//! What a configuration is made into, and the files that takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use super::keys::KeyFolder;
use crate::config::{Configuration, Listener};
use crate::edge::{Entrance, Entrances, Setup, Vouching};
use crate::forward::{Rates, Secure, Servers};
use crate::gate::{Believed, Door, Middleboxes, Rules};
use crate::policy::Policy;
use crate::posture::{Memory, Posture};

/// What rules share with the rules before and after them.
pub(super) type Lasting<'a> = (Arc<Posture>, Arc<Memory>, Arc<Rates>, Arc<Servers>, Arc<Middleboxes>, Option<&'a KeyFolder>);

pub(super) fn rules(
    configuration: &Configuration,
    entrances: &Entrances,
    (posture, memory, rates, servers, middleboxes, keys): Lasting<'_>,
    serial: u64,
) -> Rules {
    let trust = entrances.iter().filter_map(|(name, entrance)| {
        let trust = entrance.tls.as_ref()?.trust.as_ref()?;
        Some((Arc::clone(name), Arc::clone(trust)))
    });
    Rules {
        serial,
        policy: Policy::compile(configuration.policy.clone()),
        routes: configuration.routes.clone(),
        limits: configuration.limits.clone(),
        fingerprints: configuration.fingerprints.clone(),
        known: Arc::clone(&configuration.known),
        middleboxes,
        trust: trust.collect(),
        believed: entrances
            .iter()
            .filter_map(|(name, entrance)| Some((Arc::clone(name), Arc::clone(entrance.believed.as_ref()?))))
            .collect(),
        balancers: entrances.iter().map(|(name, entrance)| (Arc::clone(name), entrance.balancers.clone().unwrap_or_default())).collect(),
        posture,
        memory,
        rates,
        servers,
        notary: keys.map(|keys| keys.notary(&configuration.assertion)),
    }
}

pub(super) fn entrances(configuration: &Configuration, before: &Entrances) -> Result<Entrances, Error> {
    // A redirect leads to the first TLS listener's port.
    let https = configuration.listeners.iter().find(|l| l.tls.is_some()).and_then(|l| l.bind.first()).map_or(443, SocketAddr::port);
    let entrance = |listener: &Listener| -> Result<(Arc<str>, Arc<Entrance>), Error> {
        let name: Arc<str> = Arc::from(listener.name.as_str());
        let known = before.get(&name).and_then(|entrance| entrance.tls.as_ref());
        let tls = match &listener.tls {
            Some(tls) => Some(Setup::after(known, tls).map_err(|source| Error::Tls { listener: listener.name.clone(), source })?),
            None => None,
        };
        let redirect_port = listener.redirect_to_https.then_some(https);
        let door =
            Arc::new(Door { listener: Arc::clone(&name), https: tls.is_some(), redirect_port, asked: listener.forward_auth.is_some() });
        let balancers = listener.proxy_protocol.as_deref().map(Arc::from);
        let vouching = listener.forwarded.as_ref().map(Vouching::load).transpose();
        let vouching = vouching.map_err(|source| Error::Tls { listener: listener.name.clone(), source })?;
        // Without a word on device certificates none is believed: it takes a proxy that lets no client send its own.
        let (trust, vouching) = vouching.map_or_else(Default::default, |vouching| (vouching.trust, vouching.expiries));
        let believed = (listener.forwarded.is_some() || listener.forward_auth.is_some()).then(|| {
            let askers = listener.forward_auth.clone().unwrap_or_default();
            let trusted = listener.forwarded.iter().flat_map(|forwarded| &forwarded.trusted).chain(&askers).copied().collect();
            Arc::new(Believed { trusted, askers, trust })
        });
        Ok((name, Arc::new(Entrance { door, tls, balancers, believed, vouching })))
    };
    configuration.listeners.iter().map(entrance).collect()
}

/// Every file whose change calls for a reload.
pub(super) fn files(configuration: &Configuration) -> Vec<PathBuf> {
    let tls = configuration.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let of_tls = tls.flat_map(|tls| {
        let pairs = tls.certificates.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]);
        pairs.chain(tls.client_ca.iter().cloned()).chain(tls.client_crl.iter().cloned())
    });
    let known = configuration.fingerprints.known.iter();
    let forwarded = configuration.listeners.iter().filter_map(|listener| listener.forwarded.as_ref());
    let vouched = forwarded.flat_map(|forwarded| forwarded.client_ca.iter().chain(&forwarded.client_crl));
    let of_apps = Secure::files(&configuration.routes);
    let own = configuration.files.iter().chain(&configuration.policy_dir).chain(known).chain(vouched).cloned();
    own.chain(of_tls).chain(of_apps).collect()
}

pub(super) fn sources(configuration: &Configuration) -> Vec<(&str, std::time::Duration)> {
    configuration.policy.sources.iter().map(|source| (source.name.as_str(), source.ttl)).collect()
}
