//! Cookies that are between the browser and us.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// What remembers that a notice was read: over TLS, and without.
pub const NOTICE_COOKIES: [&str; 2] = ["__Host-vestibule-notice", "vestibule-notice"];

/// No app sees them. The others stay as they came, byte for byte where there is none of ours.
pub(super) fn strip_ours(headers: &mut HeaderMap) {
    // The second name ends the first: one search finds both.
    let mentions = |value: &HeaderValue| memchr::memmem::find(value.as_bytes(), NOTICE_COOKIES[1].as_bytes()).is_some();
    if !headers.get_all(COOKIE).iter().any(mentions) {
        return;
    }
    let fields: Vec<HeaderValue> = headers.get_all(COOKIE).iter().filter_map(without_ours).collect();
    headers.remove(COOKIE);
    for field in fields {
        headers.append(COOKIE, field);
    }
}

/// `None`: nothing is left.
fn without_ours(field: &HeaderValue) -> Option<HeaderValue> {
    let ours = |pair: &&[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        NOTICE_COOKIES.iter().any(|ours| name == ours.as_bytes())
    };
    let pairs = field.as_bytes().split(|byte| *byte == b';').filter(|pair| !ours(pair)).map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = pairs.filter(|pair| !pair.is_empty()).collect();
    HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_go_and_others_stay() {
        for (given, left) in [
            (&["a=1; __Host-vestibule-notice=x; b=2"][..], &["a=1; b=2"][..]),
            (&["vestibule-notice=x"], &[]),
            (&["__Host-vestibule-notice=x", "a=1"], &["a=1"]),
            (&[" vestibule-notice = x ;a=1;vestibule-notice=y"], &["a=1"]),
            (&["vestibule-notice"], &[]),
            (&["my-vestibule-notice=1; vestibule-notice2=2;  odd"], &["my-vestibule-notice=1; vestibule-notice2=2; odd"]),
            (&["a=1;b=2 ;; c"], &["a=1;b=2 ;; c"]),
            (&["a=vestibule-notice=1"], &["a=vestibule-notice=1"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(COOKIE, HeaderValue::from_static(value));
            }
            strip_ours(&mut headers);
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), left, "{given:?}");
        }
    }
}
