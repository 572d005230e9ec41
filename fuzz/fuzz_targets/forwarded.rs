#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use vestibule::request::{client_cert, client_cert_fields, spoken};

const NAMES: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "client-cert", "client-cert-chain"];

fn trusted(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10)
}

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for (line, name) in bytes.split(|byte| *byte == b'\n').zip(NAMES.iter().cycle()).take(20) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let peer = IpAddr::from([10, 0, 0, 1]);
    if let Ok(told) = spoken(&headers, peer, trusted) {
        assert_eq!(told.client, told.client.to_canonical());
        assert!(told.via.len() <= 32);
        match told.via.split_last() {
            None => assert_eq!(told.client, peer),
            Some((last, others)) => {
                assert_eq!(*last, peer);
                assert!(others.iter().all(|ip| trusted(*ip)));
            }
        }
    }
    if let Ok(chain) = client_cert(&headers) {
        assert!(chain.len() <= 9);
        let fields: HeaderMap = client_cert_fields(&chain).into_iter().collect();
        assert_eq!(client_cert(&fields).unwrap(), chain);
    }
});
