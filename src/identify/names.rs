//! Which hosts a server certificate speaks for.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The names that a certificate covers (RFC 6125): a host outside them is misdirected.
#[derive(Debug)]
pub struct CertificateNames {
    exact: Vec<String>,
    /// `*.corp.example`, kept as `corp.example`.
    below: Vec<String>,
}

impl CertificateNames {
    /// Whether it names this host itself, without a wildcard.
    pub fn name(&self, host: &str) -> bool {
        self.exact.iter().any(|name| name == host)
    }

    /// A wildcard stands for exactly one label.
    pub fn cover(&self, host: &str) -> bool {
        self.name(host) || host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && self.below.iter().any(|name| name == rest))
    }

    /// Whether it covers any name below this one.
    pub fn reach_below(&self, domain: &str) -> bool {
        let is_below = |name: &String| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        self.exact.iter().any(is_below) || self.below.iter().any(|name| name == domain || is_below(name))
    }

    /// `None` when it is no X.509 certificate.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Self { exact: Vec::new(), below: Vec::new() };
        let Ok(Some(san)) = parsed.subject_alternative_name() else { return Some(names) };
        for name in &san.value.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    let name = name.to_ascii_lowercase();
                    match name.strip_prefix("*.") {
                        Some(rest) => names.below.push(rest.to_owned()),
                        None => names.exact.push(name),
                    }
                }
                GeneralName::IPAddress([a, b, c, d]) => names.exact.push(format!("{a}.{b}.{c}.{d}")),
                GeneralName::IPAddress(bytes) => {
                    if let Ok(sixteen) = <[u8; 16]>::try_from(*bytes) {
                        names.exact.push(format!("[{}]", std::net::Ipv6Addr::from(sixteen)));
                    }
                }
                _ => {}
            }
        }
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label_and_not_the_name_itself() {
        let names = CertificateNames { exact: vec!["portal.corp.example".into()], below: vec!["corp.example".into()] };
        assert!(names.cover("portal.corp.example") && names.cover("wiki.corp.example"));
        assert!(names.reach_below("corp.example") && names.reach_below("example") && !names.reach_below("rp.example"));
        assert!(!names.cover("corp.example") && !names.cover("a.wiki.corp.example") && !names.cover(".corp.example"));
    }

    #[test]
    fn names_are_read_from_the_subject_alternative_name_alone() {
        let names = ["Wiki.Corp.Example", "*.lab.example", "127.0.0.1", "::1"].map(String::from).to_vec();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let names = CertificateNames::of(made.cert.der()).unwrap();
        for host in ["wiki.corp.example", "a.lab.example", "127.0.0.1", "[::1]"] {
            assert!(names.cover(host), "{host}");
        }
        assert!(!names.cover("rcgen self signed cert"));
    }
}
