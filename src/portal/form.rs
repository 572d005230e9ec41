//! Which form an answer takes.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A page for a person.
    Html,
    /// `application/problem+json` (RFC 9457), for programs.
    Problem,
    Grpc,
    GrpcWeb,
}

impl Form {
    /// The form that a request's header names. A gRPC client reads nothing but a gRPC status, whatever it accepts. A page goes to clients that name `text/html` and prefer no kind of
    /// JSON to it; `*/*` alone is a program.
    pub fn wanted(request: &HeaderMap) -> Self {
        if let Some(form) = request.get(CONTENT_TYPE).and_then(|value| grpc(value.as_bytes())) {
            return form;
        }
        let mut html = 0;
        let mut json = 0;
        for value in request.get_all(ACCEPT) {
            let Ok(text) = value.to_str() else { continue };
            for range in text.split(',') {
                let (media, quality) = media_range(range);
                if media.eq_ignore_ascii_case("text/html") {
                    html = html.max(quality);
                } else if media.eq_ignore_ascii_case("application/problem+json") || media.eq_ignore_ascii_case("application/json") {
                    json = json.max(quality);
                }
            }
        }
        if html > 0 && html >= json { Self::Html } else { Self::Problem }
    }
}

/// `application/grpc`, alone or with a suffix (`+proto`) or a parameter.
fn grpc(content_type: &[u8]) -> Option<Form> {
    const GRPC: &[u8] = b"application/grpc";
    let (head, rest) = content_type.split_at_checked(GRPC.len())?;
    if !head.eq_ignore_ascii_case(GRPC) {
        return None;
    }
    match rest {
        [] | [b'+' | b';' | b' ', ..] => Some(Form::Grpc),
        [b'-', web @ ..] if web.get(..3).is_some_and(|web| web.eq_ignore_ascii_case(b"web")) => Some(Form::GrpcWeb),
        _ => None,
    }
}

/// A media range of Accept with its quality in thousandths (RFC 9110 section 12.5.1).
fn media_range(range: &str) -> (&str, u16) {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim_end().eq_ignore_ascii_case("q").then(|| thousandths(value.trim_start()))
    });
    (media, quality.unwrap_or(1000))
}

/// A quality value (RFC 9110 section 12.4.2). What is not one counts as 0: a client that we do not understand gets the form for programs.
fn thousandths(value: &str) -> u16 {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return 0;
    }
    let decimals = decimals.bytes().chain(*b"000").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match (whole, decimals) {
        ("0", decimals) => decimals,
        ("1", 0) => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fields: &[(&'static str, &str)]) -> Form {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Form::wanted(&headers)
    }

    #[test]
    fn accept_names_html() {
        for accept in [
            "text/html",
            "TEXT/HTML",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "application/json;q=0.5, text/html;q=0.7",
            "application/json, text/html",
            "text/html ; q=0.001",
            "text/html;level=1;Q=1.000",
        ] {
            assert_eq!(wanted(&[("accept", accept)]), Form::Html, "{accept}");
        }
        assert_eq!(wanted(&[("accept", "image/png"), ("accept", "text/html")]), Form::Html, "two fields are one list");
    }

    #[test]
    fn everything_else_is_a_problem_document() {
        for accept in [
            "*/*",
            "",
            "text/*",
            "text/html;q=0",
            "text/html;q=0.000",
            "text/html; q=0.0, */*",
            "text/html;q=2",
            "text/html;q=1.5",
            "text/html;q=",
            "text/html;q=-1",
            "text/html;q=0.1234",
            "text/html;q=abc",
            "application/json",
            "application/json, text/html;q=0.9",
            "application/problem+json;q=0.6, text/html;q=0.5",
            "text/htmlx",
            ";;;,,,=",
        ] {
            assert_eq!(wanted(&[("accept", accept)]), Form::Problem, "{accept}");
        }
        assert_eq!(wanted(&[]), Form::Problem);
    }

    #[test]
    fn grpc_by_content_type() {
        for (content_type, form) in [
            ("application/grpc", Form::Grpc),
            ("application/grpc+proto", Form::Grpc),
            ("Application/GRPC; charset=utf-8", Form::Grpc),
            ("application/grpc-web", Form::GrpcWeb),
            ("application/grpc-web-text", Form::GrpcWeb),
            ("application/grpcx", Form::Html),
            ("application/grp", Form::Html),
            ("application/grpc-we", Form::Html),
            ("text/html", Form::Html),
        ] {
            assert_eq!(wanted(&[("content-type", content_type), ("accept", "text/html")]), form, "{content_type}");
        }
    }
}
