//! The texts: every reason as a sentence for the person in front of the screen.
//!
//! Sentences stand in lists and therefore have no full stop. They speak of the device, never of the person's guilt, and name no internals.

use std::time::Duration;

use crate::model::{DeviceState, FactState, NoRecord, Reason, RestrictionKey};

/// What a reason means to the person. The closed set makes a new reason a compile error here.
pub(super) fn sentence(reason: &Reason<'_>) -> String {
    match reason {
        Reason::RuleMatched => "A rule for this app says so".into(),
        Reason::NoRule => "No rule of this app lets this device in".into(),
        Reason::AppReport => "The rules of this app are being tried out and do not refuse anything yet".into(),
        Reason::Exception(name) => format!("An exception is in force for this device (“{name}”)"),
        Reason::Notice => "Something about this device has to be mended soon".into(),
        Reason::Posture(fact, state) => posture(fact, *state),
        Reason::PostureAge(None) => "This device has not been checked recently enough".into(),
        Reason::PostureAge(Some(fact)) => format!("The last check of “{}” is not recent enough", label(fact)),
        Reason::NoRecord(why) => no_record(*why).into(),
        Reason::DeviceState(state) => device_state(*state).into(),
        Reason::Device(field) => device_field(field),
        Reason::Class(name) => class(name),
        Reason::Tier(name) => format!("The level of trust that this device has earned, “{name}”, is not the one that this app asks for"),
        Reason::Cap(name) => format!("Something about this connection or device lowers the trust in it (“{name}”)"),
        Reason::Signal(name) => signal(name),
        Reason::StoreUnavailable => "The record of this device cannot be read at the moment".into(),
        Reason::Restriction(RestrictionKey::Methods) => "This device may not use this kind of request here".into(),
        Reason::Restriction(RestrictionKey::Paths) => "This device may not use this part of the app".into(),
        Reason::Restriction(RestrictionKey::Attachments) => "This device may not download files from this app".into(),
        Reason::Restriction(RestrictionKey::MaxResponse) => "What was asked for is larger than this device may receive".into(),
        Reason::Restriction(RestrictionKey::MaxBody) => "What was sent is larger than this app accepts".into(),
        Reason::Restriction(RestrictionKey::Requests) => {
            "This device has sent more requests than this app accepts in so short a time".into()
        }
        Reason::Malformed => "The request could not be understood".into(),
        Reason::NoApp => "No app has this address".into(),
        Reason::Misdirected => "The connection was made for another address".into(),
        Reason::Upgrade => "The app was asked for a kind of connection that is not carried here".into(),
        Reason::ClientGone => "The connection ended before the answer began".into(),
        Reason::LogUnavailable => "Decisions cannot be recorded at the moment, and without a record nobody is let in".into(),
        Reason::Internal => "Something went wrong on our side".into(),
        Reason::UpstreamUnreachable => "The app cannot be reached".into(),
        Reason::UpstreamTimeout => "The app did not answer in time".into(),
        Reason::UpstreamBroken => "The app gave an answer that cannot be passed on".into(),
        Reason::RedirectHttps => "This address is only open over a secure connection (https)".into(),
        Reason::AssertionUnavailable => "The app cannot be told who is asking at the moment, and without that nobody is let in".into(),
        Reason::AssertionKeys => "The keys that apps verify requests with are open to everybody".into(),
        Reason::Untrusted => "Only proxies that are known here may ask for others".into(),
        Reason::Unenforceable => "This device may use the app only within limits that cannot be kept here".into(),
    }
}

fn posture(fact: &str, state: FactState) -> String {
    let known = match fact {
        "mdm_enrolled" => [
            "This device is enrolled in device management",
            "This device is not enrolled in device management",
            "It is not known whether this device is enrolled in device management",
        ],
        "mdm_compliant" => [
            "This device meets the rules of device management",
            "This device does not meet the rules of device management",
            "It is not known whether this device meets the rules of device management",
        ],
        "disk_encrypted" => {
            ["Disk encryption is on", "Disk encryption is off on this device", "It is not known whether disk encryption is on"]
        }
        "screen_lock" => {
            ["The screen lock is on", "The screen lock is off on this device", "It is not known whether the screen lock is on"]
        }
        "os_supported" => [
            "The operating system of this device is a supported version",
            "The operating system of this device is a version that is no longer supported",
            "It is not known whether the operating system of this device is a supported version",
        ],
        "patched" => [
            "The security updates of this device are installed",
            "Security updates are missing on this device",
            "It is not known whether the security updates of this device are installed",
        ],
        "firewall_on" => ["The firewall is on", "The firewall is off on this device", "It is not known whether the firewall is on"],
        "edr_healthy" => [
            "The security software on this device is working",
            "The security software on this device is missing or not working",
            "It is not known whether the security software on this device is working",
        ],
        "secure_boot" => ["Secure boot is on", "Secure boot is off on this device", "It is not known whether secure boot is on"],
        "not_jailbroken" => [
            "The system of this device is unmodified",
            "The system of this device has been modified (jailbroken or rooted)",
            "It is not known whether the system of this device is unmodified",
        ],
        _ => {
            let label = label(fact);
            return match state {
                FactState::Ok => format!("The check “{label}” has passed on this device"),
                FactState::Fail => format!("The check “{label}” has not passed on this device"),
                FactState::Unknown => format!("The result of the check “{label}” is not known for this device"),
            };
        }
    };
    let [ok, fail, unknown] = known;
    match state {
        FactState::Ok => ok,
        FactState::Fail => fail,
        FactState::Unknown => unknown,
    }
    .into()
}

/// A fact's name on the page. Names that are not well known are written by operators as `snake_case`.
pub(super) fn label(fact: &str) -> String {
    match fact {
        "mdm_enrolled" => "Enrolled in device management",
        "mdm_compliant" => "Meets the rules of device management",
        "disk_encrypted" => "Disk encryption",
        "screen_lock" => "Screen lock",
        "os_supported" => "Supported operating system",
        "patched" => "Security updates",
        "firewall_on" => "Firewall",
        "edr_healthy" => "Security software",
        "secure_boot" => "Secure boot",
        "not_jailbroken" => "Unmodified system",
        _ => {
            let mut letters = fact.chars();
            return match letters.next() {
                Some(first) => first.to_uppercase().chain(letters.map(|c| if c == '_' { ' ' } else { c })).collect(),
                None => String::new(),
            };
        }
    }
    .into()
}

const fn no_record(why: NoRecord) -> &'static str {
    match why {
        NoRecord::NoProof => "This device did not show a certificate, so there is no telling which device it is",
        NoRecord::UnknownCertificate => "This device showed a valid certificate, but IT has no record of a device with it",
        NoRecord::ExpiredCertificate => "The certificate of this device has expired",
        NoRecord::FutureCertificate => "The certificate of this device is not valid yet",
        NoRecord::UntrustedCertificate => "The certificate of this device was not issued for use here",
        NoRecord::RevokedCertificate => "The certificate of this device has been revoked",
        NoRecord::StaleCrl => "The certificate of this device cannot be checked, because our list of revoked certificates is out of date",
    }
}

const fn device_state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Pending => "This device is waiting for approval",
        DeviceState::Approved => "This device is approved for work, which this app does not open for",
        DeviceState::Suspended => "This device has been suspended",
        DeviceState::Lost => "This device has been reported lost",
        DeviceState::Retired => "This device has been retired",
    }
}

/// Fields by their signal's name, without `device.`. Fields whose value alone says nothing to a person share one sentence.
fn device_field(field: &str) -> String {
    match field {
        "ownership" => "This app asks who owns the device, and opens for company devices or personal devices only".into(),
        "onnet" => "This app asks whether a personal device is approved for the company network".into(),
        "user" => "This device is registered to another person than this app opens for".into(),
        "team" => "This device belongs to another team than this app opens for".into(),
        "os" | "os_version" => "The operating system that this device is registered with is not one that this app opens for".into(),
        "model" => "The model of this device is not one that this app opens for".into(),
        "key" => "This device has not proved itself in the way that this app asks for".into(),
        "known_for" => "This device has not been registered for long enough".into(),
        _ => format!("The record of this device does not have the {} that this app asks for", field.replace('_', " ")),
    }
}

/// A fact, not a verdict: which classes may do what is the rule's business, and a device may be welcome elsewhere.
fn class(name: &str) -> String {
    match name {
        "corporate" => "This is a company device".into(),
        "personal_onnet" => "This is a personal device".into(),
        "personal_offnet" => "This is a personal device that is not approved for the company network".into(),
        "blind" => "IT has no record of this device".into(),
        "unclassified" => "The record of this device does not say what kind of device it is".into(),
        _ => format!("This device is of the kind “{name}”"),
    }
}

/// Signals by their full name.
fn signal(name: &str) -> String {
    match name {
        "net.zone" | "net.peer" => "The network that this device is on is not one that this is open from".into(),
        "time.weekday" => "Today is not one of the days that this is open on".into(),
        "time.hour" => "It is not one of the hours that this is open in".into(),
        "http.method" => "This app does not take this kind of request".into(),
        "http.path" => "This part of the app is not open to this device".into(),
        "http.host" => "This address of the app is not open to this device".into(),
        "claims.os" => "The operating system that this device reports is not one that this app opens for".into(),
        "claims.browser" => "The browser or program in use is not one that this app opens for".into(),
        "claims.form_factor" => "This kind of device (desktop, phone, tablet) is not one that this app opens for".into(),
        "wire.ja4" | "wire.ja4_stable" | "wire.h2" | "wire.syn" => {
            "The program in use connects in a way that this app does not open for".into()
        }
        "wire.stack" | "wire.browser" => "The program in use is not of a kind that this app opens for".into(),
        "wire.os" => "The operating system that this connection looks like is not one that this app opens for".into(),
        "wire.intercepted" => "Something on the network between this device and us opens its connections in its place".into(),
        "wire.drift" => "This device connects in a way that it never did before".into(),
        "wire.contradictions" => "The program in use does not look like what it says it is".into(),
        _ if name.starts_with("http.header.") => "The request lacks something that this app asks for".into(),
        _ => "Something about this connection is not what this app asks for".into(),
    }
}

/// How long ago a fact was observed.
pub(super) fn ago(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0..2 => "just now".into(),
        2..90 => format!("{minutes} minutes ago"),
        90..2160 => format!("{} hours ago", (minutes + 30) / 60),
        _ => format!("{} days ago", (minutes + 720) / 1440),
    }
}

/// A wait, rounded up so that whoever keeps to it is not refused again.
pub(super) fn wait(seconds: u64) -> String {
    match seconds {
        0 | 1 => "one second".into(),
        2..120 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// A size in the units of the configuration: exact where it is a whole number of them, else in bytes.
pub(super) fn size(bytes: u64) -> String {
    for (unit, power) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >> power > 0 && bytes.trailing_zeros() >= power {
            return format!("{} {unit}", bytes >> power);
        }
    }
    if bytes == 1 { "1 byte".into() } else { format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WELL_KNOWN_FACTS;

    /// One of every reason; names that come from a policy stand as the placeholders that docs/refusals.md uses.
    fn every() -> Vec<Reason<'static>> {
        let mut all = vec![
            Reason::RuleMatched,
            Reason::NoRule,
            Reason::AppReport,
            Reason::Exception("<name>"),
            Reason::Notice,
            Reason::PostureAge(None),
            Reason::PostureAge(Some("<fact>")),
            Reason::Class("<name>"),
            Reason::Class("corporate"),
            Reason::Class("personal_onnet"),
            Reason::Class("personal_offnet"),
            Reason::Class("blind"),
            Reason::Class("unclassified"),
            Reason::Tier("<name>"),
            Reason::Cap("<name>"),
            Reason::StoreUnavailable,
            Reason::Malformed,
            Reason::NoApp,
            Reason::Misdirected,
            Reason::Upgrade,
            Reason::ClientGone,
            Reason::Internal,
            Reason::LogUnavailable,
            Reason::UpstreamUnreachable,
            Reason::UpstreamTimeout,
            Reason::UpstreamBroken,
            Reason::RedirectHttps,
            Reason::AssertionUnavailable,
            Reason::AssertionKeys,
            Reason::Untrusted,
            Reason::Unenforceable,
        ];
        all.extend(FactState::ALL.map(|state| Reason::Posture("<fact>", state)));
        all.extend(DeviceState::ALL.map(Reason::DeviceState));
        all.extend(RestrictionKey::ALL.map(Reason::Restriction));
        all.extend(NoRecord::ALL.map(Reason::NoRecord));
        all.extend(
            ["id", "name", "ownership", "onnet", "user", "team", "os", "os_version", "model", "key", "tags", "known_for"]
                .map(Reason::Device),
        );
        all.extend(
            [
                "net.zone",
                "net.peer",
                "time.weekday",
                "time.hour",
                "http.method",
                "http.path",
                "http.host",
                "http.header.<name>",
                "claims.os",
                "claims.browser",
                "claims.form_factor",
                "wire.ja4",
                "wire.ja4_stable",
                "wire.h2",
                "wire.syn",
                "wire.stack",
                "wire.browser",
                "wire.os",
                "wire.intercepted",
                "wire.drift",
                "wire.contradictions",
            ]
            .map(Reason::Signal),
        );
        all
    }

    #[test]
    fn the_reference_has_every_code_with_the_sentence_that_people_read() {
        let doc = include_str!("../../docs/refusals.md");
        for reason in every() {
            let (code, text) = (format!("| `{reason}` |"), sentence(&reason));
            let row = doc.lines().find(|line| line.starts_with(&code));
            assert!(row.is_some_and(|row| row.contains(&format!("| {text} |"))), "docs/refusals.md lacks: {code} {text} |");
        }
    }

    #[test]
    fn sentences_are_sentences() {
        let facts = WELL_KNOWN_FACTS.iter().flat_map(|fact| FactState::ALL.map(|state| Reason::Posture(fact, state)));
        let texts: Vec<String> = every().iter().chain(&facts.collect::<Vec<_>>()).map(sentence).collect();
        for text in &texts {
            assert!(text.chars().next().is_some_and(char::is_uppercase) && !text.ends_with('.') && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn well_known_facts_have_words_of_their_own() {
        for fact in WELL_KNOWN_FACTS {
            let texts = FactState::ALL.map(|state| sentence(&Reason::Posture(fact, state)));
            assert!(texts.iter().all(|text| !text.contains('“')), "{fact}");
            assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{fact}");
        }
        assert_eq!(sentence(&Reason::Posture("disk_encrypted", FactState::Fail)), "Disk encryption is off on this device");
        assert_eq!(sentence(&Reason::Posture("usb_locked", FactState::Fail)), "The check “Usb locked” has not passed on this device");
        assert_eq!(label(""), "");
    }

    #[test]
    fn ages_waits_and_sizes() {
        let ago = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!([ago(0), ago(119)], ["just now", "just now"]);
        assert_eq!([ago(120), ago(5399)], ["2 minutes ago", "89 minutes ago"]);
        assert_eq!([ago(5400), ago(86_400)], ["2 hours ago", "24 hours ago"]);
        assert_eq!([ago(129_600), ago(u64::MAX)], ["2 days ago", "213503982334601 days ago"]);
        assert_eq!([wait(1), wait(59), wait(121)], ["one second", "59 seconds", "3 minutes"]);
        assert_eq!([size(1 << 20), size(1536 << 10), size(1000), size(3 << 30)], ["1 MiB", "1536 KiB", "1000 bytes", "3 GiB"]);
        assert_eq!([size(0), size(1), size(1023)], ["0 bytes", "1 byte", "1023 bytes"]);
    }
}
