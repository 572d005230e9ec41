//! What restrictions make of the head of an app's response: refused as a whole, or passed on with more said to the browser.

use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};

use super::order::Bounds;
use crate::model::RestrictionKey;
use crate::policy::Merged;

static PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Pages run, and nothing of them is saved: without `allow-downloads` neither `<a download>` nor a script's blob becomes a file. Without
/// `allow-top-navigation` no frame sends the page elsewhere; the page itself still goes where the person clicks.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox allow-forms allow-modals allow-popups allow-same-origin allow-scripts");

/// Says which restriction refuses the response, if one does. Those with neither content nor effect on what is shown (204, 304) are left alone.
pub(super) fn restrict(head: &mut response::Parts, merged: &Merged, bounds: &Bounds) -> Option<RestrictionKey> {
    let empty = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let headers = &mut head.headers;
    if merged.no_attachments && !empty {
        if is_file(headers) {
            return Some(RestrictionKey::Attachments);
        }
        // A browser that guesses could take for a file what is declared as something else.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if !names_type(headers) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
    }
    if !empty && merged.max_response.zip(length(headers)).is_some_and(|(most, length)| length > most) {
        return Some(RestrictionKey::MaxResponse);
    }
    if merged.sandbox {
        headers.append(CONTENT_SECURITY_POLICY, SANDBOX);
    }
    if let Some(ours) = &bounds.permissions_policy {
        deny_features(headers, ours);
    }
    None
}

/// As declared, also where the body is left out (HEAD).
fn length(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    // Digits alone, as was checked: what does not fit is more than any limit.
    Some(text.parse().unwrap_or(u64::MAX))
}

fn is_file(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_DISPOSITION).iter().any(|value| is_attachment(value.as_bytes())) || types(headers).any(is_saved_type)
}

/// What the app names as the type, parameters left out. There should be one, but browsers read a list as well and choose from it.
fn types(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let members = headers.get_all(CONTENT_TYPE).iter().flat_map(|value| {
        let (mut quoted, mut escaped) = (false, false);
        value.as_bytes().split(move |byte| {
            quoted ^= *byte == b'"' && !escaped;
            escaped = quoted && *byte == b'\\' && !escaped;
            *byte == b',' && !quoted
        })
    });
    members.map(essence).filter(|essence| !essence.is_empty())
}

/// RFC 6266 section 4.2: whatever is not `inline` counts as an attachment, types that nobody knows included.
fn is_attachment(value: &[u8]) -> bool {
    let disposition = essence(value);
    !(disposition.eq_ignore_ascii_case(b"inline") || value.trim_ascii().is_empty())
}

/// A field's value up to its parameters.
fn essence(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// `type/subtype`, and nothing else: a browser has to guess at what is none, or takes it for a file.
fn names_type(headers: &HeaderMap) -> bool {
    let is_token = |part: &[u8]| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(byte);
        !part.is_empty() && part.iter().all(plain)
    };
    let is_type = |essence: &[u8]| {
        let mut parts = essence.splitn(2, |byte| *byte == b'/');
        parts.next().is_some_and(is_token) && parts.next().is_some_and(is_token)
    };
    let mut named = types(headers).peekable();
    named.peek().is_some() && named.all(is_type)
}

/// Types that browsers save and never show. docs/refusals.md lists them; a test compares.
fn is_saved_type(essence: &[u8]) -> bool {
    let is = |name: &&str| match name.strip_suffix('*') {
        Some(head) => essence.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head.as_bytes())),
        None => essence.eq_ignore_ascii_case(name.as_bytes()),
    };
    SAVED_TYPES.iter().any(|(_, names)| names.iter().any(is))
}

type Named = (&'static str, &'static [&'static str]);

pub(super) const SAVED_TYPES: [Named; 6] = [
    (
        "bytes of no type",
        &[
            "application/octet-stream",
            "binary/octet-stream",
            "application/binary",
            "application/x-binary",
            "application/download",
            "application/x-download",
            "application/force-download",
            "application/x-force-download",
            "application/unknown",
            "unknown/unknown",
        ],
    ),
    (
        "archives and images of disks",
        &[
            "application/zip",
            "application/x-zip",
            "application/x-zip-compressed",
            "application/gzip",
            "application/x-gzip",
            "application/x-tar",
            "application/x-gtar",
            "application/x-compressed-tar",
            "application/x-bzip",
            "application/x-bzip2",
            "application/x-xz",
            "application/zstd",
            "application/x-7z-compressed",
            "application/vnd.rar",
            "application/x-rar",
            "application/x-rar-compressed",
            "application/vnd.ms-cab-compressed",
            "application/x-iso9660-image",
            "application/x-apple-diskimage",
        ],
    ),
    (
        "programs and packages",
        &[
            "application/x-msdownload",
            "application/x-msdos-program",
            "application/x-dosexec",
            "application/vnd.microsoft.portable-executable",
            "application/x-ms-installer",
            "application/x-msi",
            "application/x-executable",
            "application/x-sh",
            "application/java-archive",
            "application/vnd.android.package-archive",
            "application/vnd.debian.binary-package",
            "application/x-debian-package",
            "application/x-rpm",
            "application/x-redhat-package-manager",
            "application/vnd.apple.installer+xml",
        ],
    ),
    (
        "documents and databases",
        &[
            "application/msword",
            "application/rtf",
            "application/vnd.ms-excel*",
            "application/vnd.ms-powerpoint*",
            "application/vnd.ms-word*",
            "application/vnd.ms-outlook",
            "application/vnd.ms-access",
            "application/vnd.ms-project",
            "application/vnd.visio",
            "application/vnd.openxmlformats-officedocument.*",
            "application/vnd.oasis.opendocument.*",
            "application/vnd.apple.pages",
            "application/vnd.apple.numbers",
            "application/vnd.apple.keynote",
            "application/epub+zip",
            "application/vnd.sqlite3",
            "application/x-sqlite3",
            "message/rfc822",
        ],
    ),
    (
        "tables, calendars and address cards",
        &[
            "text/csv",
            "text/x-csv",
            "text/comma-separated-values",
            "text/tab-separated-values",
            "text/tsv",
            "text/calendar",
            "text/x-vcalendar",
            "text/vcard",
            "text/x-vcard",
            "text/directory",
            "text/ldif",
            "text/rtf",
        ],
    ),
    ("several parts in one, whose own types nobody reads", &["multipart/*"]),
];

/// Leaves the app what it says of other features. Browsers read all fields as one structured dictionary (RFC 9651), where a single mistake makes
/// them pass over everything: so members that are none go, and ours stands last.
fn deny_features(headers: &mut HeaderMap, ours: &HeaderValue) {
    let Some(ours_text) = ours.to_str().ok().filter(|_| headers.contains_key(&PERMISSIONS_POLICY)) else {
        headers.insert(&PERMISSIONS_POLICY, ours.clone());
        return;
    };
    let named = |feature: &str| ours_text.split(", ").any(|member| member.strip_suffix("=()") == Some(feature));
    let mut kept: Vec<&str> = Vec::new();
    let fields: Vec<HeaderValue> = headers.get_all(&PERMISSIONS_POLICY).iter().cloned().collect();
    let members = fields.iter().filter_map(|field| field.to_str().ok()).flat_map(|text| text.split(',')).map(str::trim);
    kept.extend(members.filter(|member| feature_of(member).is_some_and(|feature| !named(feature))));
    kept.push(ours_text);
    if let Ok(value) = HeaderValue::from_str(&kept.join(", ")) {
        headers.insert(&PERMISSIONS_POLICY, value);
    }
}

/// The feature of a member that every browser reads: `name=*`, `name=self` or `name=(..)`, with parameters or without. Commas in quotes are no part of
/// any origin.
fn feature_of(member: &str) -> Option<&str> {
    let (feature, value) = member.split_once('=')?;
    let key = |text: &str| {
        text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'*')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
    };
    let token = |text: &str| {
        text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'*')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b))
    };
    let quoted = |text: &str| {
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        inner.is_some_and(|inner| inner.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'))
    };
    let (value, rest) = match value.strip_prefix('(') {
        Some(inner) => {
            inner.split_once(')').map(|(list, rest)| (list.split_ascii_whitespace().all(|item| token(item) || quoted(item)), rest))?
        }
        None => {
            let end = value.find(';').unwrap_or(value.len());
            let (item, rest) = value.split_at_checked(end)?;
            (token(item) || quoted(item), rest)
        }
    };
    let parameters = rest.is_empty()
        || rest.strip_prefix(';').is_some_and(|rest| {
            rest.split(';').all(|parameter| {
                let (name, value) = parameter.trim_start_matches(' ').split_once('=').unwrap_or((parameter.trim_start_matches(' '), "a"));
                key(name) && (token(value) || quoted(value))
            })
        });
    (key(feature) && value && parameters).then_some(feature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> response::Parts {
        let (mut head, ()) = http::Response::new(()).into_parts();
        for (name, value) in fields {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    fn all<'a>(head: &'a response::Parts, name: &str) -> Vec<&'a str> {
        head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn attachments_in_every_spelling() {
        let merged = Merged { no_attachments: true, ..Merged::default() };
        let refused = |fields: &[(&'static str, &'static str)]| restrict(&mut head(fields), &merged, &Bounds::default()).is_some();
        for value in [
            "attachment",
            "ATTACHMENT",
            "Attachment; filename=\"a.txt\"",
            " attachment ;filename*=UTF-8''a",
            "save-as; filename=a",
            "form-data; name=x",
            "inline, attachment",
            "filename=a.txt",
            "; filename=a.txt",
            "inlined",
        ] {
            assert!(refused(&[("content-type", "text/html"), ("content-disposition", value)]), "{value}");
        }
        assert!(refused(&[("content-disposition", "inline"), ("content-disposition", "attachment")]), "one of several");
        for value in ["inline", "Inline; filename=\"attachment.txt\"", "", " "] {
            assert!(!refused(&[("content-type", "text/html"), ("content-disposition", value)]), "{value}");
        }
        for value in [
            "application/octet-stream",
            "Application/ZIP; x=y",
            "text/csv;charset=utf-8",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "multipart/byteranges; boundary=x",
            "multipart/x-mixed-replace; boundary=x",
            "unknown/unknown",
            "text/html, application/zip",
            "text/html; charset=utf-8 ,Application/Zip",
            "application/zip, text/html",
        ] {
            assert!(refused(&[("content-type", value)]), "{value}");
        }
        assert!(refused(&[("content-type", "text/html"), ("content-type", "application/zip")]));
        for value in
            ["text/html", "image/png", "application/json", "application/pdf", "application/vnd.apple.mpegurl", "application/zipper"]
        {
            assert!(!refused(&[("content-type", value)]), "{value}");
        }
    }

    #[test]
    fn what_passes_is_not_guessed_at() {
        let merged = Merged { no_attachments: true, ..Merged::default() };
        for (fields, kind) in [
            (&[("content-type", "text/html"), ("x-content-type-options", "sniff")][..], "text/html"),
            (&[], "text/plain"),
            (&[("content-type", "")], "text/plain"),
            (&[("content-type", "html")], "text/plain"),
            (&[("content-type", "/html; a")], "text/plain"),
            (&[("content-type", "*/*")], "text/plain"),
            (&[("content-type", "\"application/zip\"")], "text/plain"),
            (&[("content-type", "text/html, \"application/zip\"")], "text/plain"),
            (&[("content-type", "text/html;charset=utf-8, ,")], "text/html;charset=utf-8, ,"),
            (&[("content-type", "application/json; profile=\"a, b\\\", c/d\"")], "application/json; profile=\"a, b\\\", c/d\""),
        ] {
            let mut head = head(fields);
            assert_eq!(restrict(&mut head, &merged, &Bounds::default()), None);
            assert_eq!((all(&head, "x-content-type-options"), all(&head, "content-type")), (vec!["nosniff"], vec![kind]));
        }
        let mut unchanged = head(&[("content-disposition", "attachment"), ("content-length", "9999")]);
        unchanged.status = StatusCode::NOT_MODIFIED;
        let all_of_it = Merged { max_response: Some(1), ..merged };
        assert_eq!(restrict(&mut unchanged, &all_of_it, &Bounds::default()), None);
        assert_eq!(unchanged.headers.len(), 2);
    }

    #[test]
    fn declared_lengths() {
        let merged = Merged { max_response: Some(10), ..Merged::default() };
        for (length, refused) in [("10", false), ("11", true), ("0", false), ("99999999999999999999999999", true)] {
            assert_eq!(restrict(&mut head(&[("content-length", length)]), &merged, &Bounds::default()).is_some(), refused, "{length}");
        }
    }

    #[test]
    fn the_sandbox_stands_beside_the_apps_own_policy() {
        let mut head = head(&[("content-security-policy", "default-src 'self'")]);
        restrict(&mut head, &Merged { sandbox: true, ..Merged::default() }, &Bounds::default());
        let policies = all(&head, "content-security-policy");
        assert_eq!(policies.len(), 2);
        assert!(policies[1].starts_with("sandbox allow-forms") && !policies[1].contains("allow-downloads"));
    }

    #[test]
    fn our_word_on_a_feature_is_the_last_whatever_the_app_says() {
        let bounds = Bounds { permissions_policy: Bounds::permissions(["camera", "microphone", "camera"]), ..Bounds::default() };
        assert_eq!(bounds.permissions_policy.as_ref().unwrap(), "camera=(), microphone=()");
        assert_eq!(Bounds::permissions([]), None);
        let made = |fields: &[&'static str]| {
            let fields: Vec<_> = fields.iter().map(|value| ("permissions-policy", *value)).collect();
            let mut head = head(&fields);
            restrict(&mut head, &Merged::default(), &bounds);
            all(&head, "permissions-policy").join(" | ")
        };
        let ours = "camera=(), microphone=()";
        assert_eq!(made(&[]), ours);
        assert_eq!(
            made(&["camera=*, geolocation=(self \"https://a.example\")"]),
            format!("geolocation=(self \"https://a.example\"), {ours}")
        );
        assert_eq!(made(&["geolocation=()", "usb=self;report-to=x"]), format!("geolocation=(), usb=self;report-to=x, {ours}"));
        for spoilt in
            ["camera 'none'", "Geolocation=()", "geolocation=(", "geolocation=(self", "geolocation=)", "=()", "x=(\"a)", "x=1 2", ",,"]
        {
            assert_eq!(made(&[spoilt]), ours, "{spoilt}");
        }
        assert_eq!(made(&["camera 'none'; usb 'self', geolocation=()"]), format!("geolocation=(), {ours}"));
    }

    #[test]
    fn the_reference_lists_the_types_that_count_as_files() {
        let doc = include_str!("../../docs/refusals.md");
        for (what, names) in SAVED_TYPES {
            let row = format!("| {what} | {} |", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" "));
            assert!(doc.contains(&row), "docs/refusals.md lacks:\n{row}");
        }
    }
}
