//! Section 8: what makes a request.

use super::*;

pub fn cases() -> Vec<Case> {
    [framing(), names_and_values(), of_the_connection(), pseudo_fields(), connect()].into_iter().flatten().collect()
}

/// HAProxy ends the stream or the connection too, with another code.
const MALFORMED: &str = "8.1.1: Malformed requests or responses that are detected MUST be treated as a stream error of type PROTOCOL_ERROR";
const LENGTH: &str =
    "8.1.1: malformed if the value of a Content-Length header field does not equal the sum of the DATA frame payload lengths";
const DIFFERENT: &str =
    "8.3.1: A server SHOULD treat a request as malformed if it contains a Host header field that identifies an entity that differs";
/// HAProxy speaks it, and says so in its SETTINGS.
const EXTENDED: &str = "RFC 8441 section 3: a client MUST NOT use it before it has received the setting from the server";
const WHOLE: u8 = END_HEADERS | END_STREAM;

fn trailers(fields: &[(&str, &str)]) -> Vec<u8> {
    [posts(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, WHOLE, 1, &block(fields))].concat()
}

fn framing() -> Vec<Case> {
    let sized = |length: &str| frame(HEADERS, END_HEADERS, 1, &block(&[&post(HOST, PATH)[..], &[("content-length", length)]].concat()));
    let body = |part: &[u8], ends: bool| frame(DATA, if ends { END_STREAM } else { 0 }, 1, part);
    let twice = |a, b| {
        let fields = [&post(HOST, PATH)[..], &[("content-length", a), ("content-length", b)]].concat();
        [frame(HEADERS, END_HEADERS, 1, &block(&fields)), body(b"five5", true)].concat()
    };
    vec![
        case("8.1 a request with trailers").send(trailers(&[("x", "y")])).expect(Answered(200)),
        case("8.1 second HEADERS without END_STREAM")
            .send([posts(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))].concat())
            .expect(Malformed),
        case("8.1 pseudo-field in trailers").send(trailers(&[(":path", "/other")])).expect(Malformed).disputed(MALFORMED),
        case("8.1 a second head in place of trailers").send(trailers(&get(HOST, PATH))).expect(Malformed).disputed(MALFORMED),
        case("8.1 connection field in trailers").send(trailers(&[("connection", "close")])).expect(Malformed).disputed(MALFORMED),
        case("8.1 upper case in trailers").send(trailers(&[("Upper", "y")])).expect(Malformed).disputed(MALFORMED),
        case("8.1 DATA after trailers")
            .send([trailers(&[("x", "y")]), body(b"more", true)].concat())
            .expect(Either(&Stream(1, &[STREAM_CLOSED, PROTOCOL_ERROR]), &Answered(200))),
        case("8.1.1 body as long as said").send([sized("5"), body(b"five5", true)].concat()).expect(Answered(200)),
        case("8.1.1 body in parts as long as said")
            .send([sized("5"), body(b"fi", false), body(b"ve5", true)].concat())
            .expect(Answered(200)),
        case("8.1.1 body shorter than said").send([sized("9"), body(b"five5", true)].concat()).expect(Malformed),
        case("8.1.1 body longer than said").send([sized("1"), body(b"five5", true)].concat()).expect(Malformed),
        case("8.1.1 parts longer than said").send([sized("3"), body(b"fi", false), body(b"ve5", true)].concat()).expect(Malformed),
        case("8.1.1 parts shorter than said").send([sized("9"), body(b"fi", false), body(b"ve5", true)].concat()).expect(Malformed),
        case("8.1.1 no body where one was said").send(with(&[("content-length", "5")])).expect(Malformed).disputed(LENGTH),
        case("8.1.1 trailers in place of a body")
            .send([sized("5"), frame(HEADERS, WHOLE, 1, &block(&[("x", "y")]))].concat())
            .expect(Malformed)
            .disputed(LENGTH),
        case("8.1.1 length of no number").send([sized("five"), body(b"five5", true)].concat()).expect(Malformed),
        case("8.1.1 length with a sign").send([sized("+5"), body(b"five5", true)].concat()).expect(Malformed),
        case("8.1.1 length beyond 64 bits").send([sized("18446744073709551621"), body(b"five5", true)].concat()).expect(Malformed),
        case("8.1.1 two lengths").send(twice("5", "6")).expect(Malformed),
        case("8.1.1 empty length").send([sized(""), body(b"five5", true)].concat()).expect(Malformed),
    ]
}

fn names_and_values() -> Vec<Case> {
    let bad = |name, field| case(name).send(with(&[field])).expect(Malformed);
    vec![
        bad("8.2.1 upper case in a name", ("Upper", "y")),
        bad("8.2.1 space in a name", ("x y", "y")),
        bad("8.2.1 control byte in a name", ("x\u{1}", "y")),
        bad("8.2.1 DEL in a name", ("x\u{7f}", "y")),
        bad("8.2.1 byte above ASCII in a name", ("x\u{e9}", "y")),
        bad("8.2.1 colon in a name", ("x:y", "y")),
        bad("8.2.1 line break in a name", ("x\r\ny", "y")),
        bad("8.2.1 empty name", ("", "y")).disputed(MALFORMED),
        bad("8.2.1 NUL in a value", ("x", "a\0b")),
        bad("8.2.1 LF in a value", ("x", "a\nb")),
        bad("8.2.1 CR in a value", ("x", "a\rb")),
        bad("8.2.1 line break in a value", ("x", "a\r\nhost: other")),
        bad("8.2.1 value that begins with a space", ("x", " y")).disputed(AT_THE_ENDS),
        bad("8.2.1 value that ends with a space", ("x", "y ")).disputed(AT_THE_ENDS),
        bad("8.2.1 value that begins with a tab", ("x", "\ty")).disputed(AT_THE_ENDS),
        bad("8.2.1 value that ends with a tab", ("x", "y\t")).disputed(AT_THE_ENDS),
        case("8.2.1 space and tab inside a value").send(with(&[("x", "a \tb")])).expect(Answered(200)),
        case("8.2.1 empty value").send(with(&[("x", "")])).expect(Answered(200)),
        case("8.2.3 cookies in crumbs").send(with(&[("cookie", "a=1"), ("cookie", "b=2")])).expect(Answered(200)),
    ]
}

/// Newer than RFC 7540, and than the HAProxy of Debian 12.
const AT_THE_ENDS: &str = "8.2.1: A field value MUST NOT start or end with an ASCII whitespace character (ASCII SP or HTAB)";

fn of_the_connection() -> Vec<Case> {
    let bad = |name, field| case(name).send(with(&[field])).expect(Malformed);
    vec![
        bad("8.2.2 Connection", ("connection", "close")),
        bad("8.2.2 Connection that names a field", ("connection", "x-secret")),
        bad("8.2.2 Proxy-Connection", ("proxy-connection", "keep-alive")),
        bad("8.2.2 Keep-Alive", ("keep-alive", "timeout=5")),
        bad("8.2.2 Transfer-Encoding", ("transfer-encoding", "chunked")),
        bad("8.2.2 Transfer-Encoding identity", ("transfer-encoding", "identity")),
        bad("8.2.2 Upgrade", ("upgrade", "h2c")),
        bad("8.2.2 TE other than trailers", ("te", "gzip")),
        bad("8.2.2 TE with more than trailers", ("te", "trailers, deflate;q=0.5")),
        case("8.2.2 TE trailers").send(with(&[("te", "trailers")])).expect(Answered(200)),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    let (method, scheme, authority, path) = ((":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", PATH));
    let bad = |name, list: &[(&str, &str)]| case(name).send(fields(list)).expect(Malformed);
    vec![
        bad("8.3 pseudo-field behind a field", &[method, scheme, authority, ("x", "y"), path]),
        bad("8.3 unknown pseudo-field", &[method, scheme, authority, path, (":unknown", "y")]),
        bad("8.3 :status in a request", &[method, scheme, authority, path, (":status", "200")]),
        bad("8.3 pseudo-field of a colon alone", &[method, scheme, authority, path, (":", "y")]),
        bad("8.3 upper case pseudo-field", &[method, scheme, authority, path, (":Path", "/other")]),
        bad("8.3.1 no :method", &[scheme, authority, path]),
        bad("8.3.1 no :scheme", &[method, authority, path]),
        bad("8.3.1 no :path", &[method, scheme, authority]),
        bad("8.3.1 no pseudo-field at all", &[("x", "y")]),
        bad("8.3.1 two :method", &[method, method, scheme, authority, path]),
        bad("8.3.1 two :scheme", &[method, scheme, scheme, authority, path]),
        bad("8.3.1 two :path", &[method, scheme, authority, path, path]),
        bad("8.3.1 two :authority", &[method, scheme, authority, authority, path]),
        bad("8.3.1 empty :path", &[method, scheme, authority, (":path", "")]),
        bad("8.3.1 empty :method", &[(":method", ""), scheme, authority, path]),
        bad("8.3.1 empty :scheme", &[method, (":scheme", ""), authority, path]),
        bad("8.3.1 :path without a slash", &[method, scheme, authority, (":path", "case-000")]),
        bad("8.3.1 :path of a star for GET", &[method, scheme, authority, (":path", "*")])
            .disputed("8.3.1: the \":path\" pseudo-header field [..] MUST start with a \"/\"; OPTIONS alone may have \"*\""),
        bad("8.3.1 :path with a space", &[method, scheme, authority, (":path", "/case-000 HTTP/1.1")]),
        bad("8.3.1 :path with a line break", &[method, scheme, authority, (":path", "/case-000\r\nx: y")]),
        // h2 drops the fragment before anybody sees it: policy and app read the same path without it.
        case("8.3.1 :path with a fragment")
            .send(fields(&[method, scheme, authority, (":path", "/case-000#part")]))
            .expect(Either(&Malformed, &Answered(200))),
        bad("8.3.1 :method of no token", &[(":method", "GE T"), scheme, authority, path]),
        bad("8.3.1 :method with a line break", &[(":method", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"), scheme, authority, path]),
        bad("8.3.1 :authority with user information", &[method, scheme, (":authority", "me@wiki.localhost"), path])
            .disputed("8.3.1: \":authority\" MUST NOT include the deprecated userinfo subcomponent for \"http\" or \"https\" schemed URIs"),
        bad("8.3.1 :authority with a path", &[method, scheme, (":authority", "wiki.localhost/x"), path]).disputed(AUTHORITY),
        bad("8.3.1 :authority with a space", &[method, scheme, (":authority", "wiki.localhost x"), path]),
        bad("8.3.1 Host that disagrees with :authority", &[method, scheme, authority, path, ("host", "git.localhost")]).disputed(DIFFERENT),
        bad("8.3.1 two Hosts", &[method, scheme, path, ("host", HOST), ("host", "git.localhost")]).disputed(DIFFERENT),
        bad("8.3.1 neither :authority nor Host", &[method, scheme, path])
            .disputed("8.3.1: the request MUST contain an \":authority\" pseudo-header field or a \"Host\" header field for \"https\""),
        case("8.3.1 Host in place of :authority").send(fields(&[method, scheme, path, ("host", HOST)])).expect(Answered(200)),
        case("8.3.1 Host that agrees").send(with(&[("host", HOST)])).expect(Answered(200)),
        case("8.3.1 OPTIONS of a star")
            .send(fields(&[(":method", "OPTIONS"), scheme, authority, (":path", "*")]))
            .expect(Either(&FirstData(4), &Malformed)),
        case("8.3.1 a method that nobody knows").send(fields(&[(":method", "BREW"), scheme, authority, path])).expect(Answered(200)),
        case("8.3.1 pseudo-fields in another order").send(fields(&[path, authority, scheme, method])).expect(Answered(200)),
    ]
}

const AUTHORITY: &str =
    "8.3.1: \":authority\" conveys the authority portion of the target URI (RFC 3986 section 3.2), which has no such byte";

/// Section 8.5. No tunnel is ever opened here.
fn connect() -> Vec<Case> {
    let connect = (":method", "CONNECT");
    let bad = |name, list: &[(&str, &str)]| case(name).send(fields(list)).expect(Malformed);
    vec![
        bad("8.5 CONNECT with :path", &[connect, (":authority", "wiki.localhost:443"), (":path", "/")]),
        bad("8.5 CONNECT with :scheme", &[connect, (":authority", "wiki.localhost:443"), (":scheme", "https")]),
        bad("8.5 CONNECT with both", &[connect, (":authority", "wiki.localhost:443"), (":scheme", "https"), (":path", PATH)]),
        bad("8.5 CONNECT without :authority", &[connect]),
        case("RFC 8441 CONNECT for a protocol that the app does not switch to")
            .send(fields(&[connect, (":protocol", "websocket"), (":scheme", "https"), (":authority", HOST), (":path", PATH)]))
            .expect(Answered(502))
            .disputed("RFC 8441 section 5: a 2xx would open the tunnel"),
        bad(
            ":protocol of another method",
            &[(":method", "GET"), (":protocol", "x"), (":scheme", "https"), (":authority", HOST), (":path", PATH)],
        )
        .disputed(EXTENDED),
    ]
}
