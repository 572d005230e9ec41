//! Who the program behind a connection is, against what it says and what is recorded: from the wire to the decision, the log and the metric.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use serde_json::{Value, json};
use support::{Answer, Config, Curl, Lab, Origin, Proxy, RawTls, Reply, eventually};
use vestibule::cli::lab_ca::Issued;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const URL: &str = "https://wiki.corp.example/";
const HOST: &str = "wiki.corp.example";
const RELOADS: &str = "vestibule_config_reload_total";
const CONTRADICTIONS: &str = "vestibule_contradictions_total";
const CHROME: &str =
    "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const FIREFOX: &str = "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0";

/// A proxy with a table of the operator's own, and a healthy laptop.
struct World {
    origin: Origin,
    lab: Lab,
    config: Config,
    proxy: Proxy,
    laptop: Issued,
}

impl World {
    fn new(change: impl FnOnce(Config) -> Config) -> Self {
        let origin = Origin::start(|received| match received.line().split(' ').nth(1).unwrap() {
            "/hints" => Reply::status("200 OK", "Accept-CH: Sec-CH-UA-Arch\r\n", "mine"),
            _ => Reply::text("hello"),
        });
        let lab = Lab::new();
        let config = Config::new(&origin)
            .replace("[wiki.localhost]", "[wiki.corp.example, wiki.localhost]")
            .set("caps", "[{name: lying-stack, when: {wire.contradictions: any}, max_tier: known}]")
            .set("fingerprints", "{known: table.yaml}");
        let config = change(config);
        lab.configure(&config);
        lab.write("table.yaml", "rows: []\n");
        let laptop = lab.device("laptop", FIT);
        let proxy = lab.start(&config);
        Self { origin, lab, config, proxy, laptop }
    }

    fn curl(&self) -> Curl {
        Curl::to(&self.proxy, &self.lab).device(&self.laptop)
    }

    /// The log's line of an answer.
    fn line(&self, answer: &Answer) -> Value {
        let told = || self.origin.received().last().and_then(|received| received.header("x-request-id").first().cloned());
        let id = answer.header("x-request-id").map(str::to_owned).or_else(told).expect("the answer's id is known");
        eventually("the answer's line", || self.lab.decisions(0).into_iter().find(|line| line["request_id"] == id.as_str()))
    }

    /// Writes the table and waits until it is in force or refused.
    fn table(&self, rows: &str, result: &str) {
        let before = self.proxy.metrics().sum(RELOADS, &[("result", result)]);
        let next = self.lab.write("table.yaml.next", rows);
        std::fs::rename(next, self.lab.path("table.yaml")).unwrap();
        self.proxy.metric_reaches(RELOADS, &[("result", result)], before + 1.0);
    }

    /// Rows by which this machine's curl, with either protocol, is a stack of our own.
    fn rows_for_curl(&self, more: &str) -> String {
        let ja4s = [self.curl().http1(), self.curl().http2()].map(|curl| {
            let line = self.line(&curl.get(URL));
            line["wire"]["ja4_stable"].as_str().expect("a hello was seen").to_owned()
        });
        // Both ALPN values, and whatever HTTP/2 says is nobody's.
        format!(
            "rows:\n  - {{name: our-curl, stack: our-curl, tls: {{ja4: [{}, {}]}}, {more}}}\n  - {{name: any, stack: our-curl, h2: ['*'], {more}}}\n",
            ja4s[0], ja4s[1]
        )
    }
}

#[test]
fn who_says_that_it_is_another_program_is_trusted_less_and_who_does_not_is_left_alone() {
    let world = World::new(|config| config);
    world.table(&world.rows_for_curl("browsers: [curl]"), "success");
    let honest = world.curl().get(URL);
    assert_eq!(honest.status, 200);
    let line = world.line(&honest);
    assert_eq!((&line["tier"], &line["effect"], &line["rule"]), (&json!("healthy"), &json!("forward"), &json!("managed")));
    assert_eq!((&line["confidence"], &line["contradictions"]), (&json!("corroborated"), &json!([])), "{line}");
    assert_eq!((&line["wire"]["stack"], &line["wire"]["browser"]), (&json!(["our-curl"]), &json!(["curl"])), "{line}");
    assert_eq!(world.proxy.metrics().sum(CONTRADICTIONS, &[]), 0.0);

    // One connection that lies twice is counted once.
    let lying = world.curl().http1().header(CHROME).arg(URL).arg("-o").arg("/dev/null").get(URL);
    assert_eq!(lying.status, 200, "it may read: {}", lying.stderr);
    let line = world.line(&lying);
    assert_eq!((&line["tier"], &line["effect"], &line["rule"]), (&json!("known"), &json!("restrict"), &json!("byod-read")), "{line}");
    assert_eq!(line["confidence"], "contradicted");
    let first = &line["contradictions"][0];
    assert_eq!((&first["kind"], &first["strong"]), (&json!("ua_browser_vs_tls"), &json!(true)), "{line}");
    assert!(first["claimed"].as_str().unwrap().starts_with("chrome 142"), "{line}");
    assert!(first["seen"].as_str().unwrap().contains("curl"), "{line}");
    assert_eq!(line["claims"]["browser"], "chrome", "what is claimed stands beside it");
    let metrics = world.proxy.metric_reaches(CONTRADICTIONS, &[("kind", "ua_browser_vs_tls")], 1.0);
    assert_eq!(metrics.sum(CONTRADICTIONS, &[("kind", "ua_browser_vs_tls")]), 1.0);

    // Whoever is refused for it reads why, and what to do.
    let answer = world.curl().header(CHROME).post(URL, "x");
    assert_eq!(answer.status, 403);
    let refusing = world
        .config
        .clone()
        .replace("{name: byod-read, when: {tier: \">= known\"}, then: restrict, with: [read-only, private]}", "{name: none, then: block}")
        .without("restrictions");
    let before = world.proxy.metrics().sum(RELOADS, &[("result", "success")]);
    world.lab.configure(&refusing);
    world.proxy.metric_reaches(RELOADS, &[("result", "success")], before + 1.0);
    let refused = world.curl().header(CHROME).get(URL);
    assert_eq!((refused.status, &refused.json()["reasons"]), (403, &json!(["cap.lying-stack"])));
    let page = world.curl().header(CHROME).header("Accept: text/html").get(URL);
    assert!(page.body.contains("The program you use does not look like what it says it is"), "{}", page.body);
    assert!(page.body.contains("User-Agent") && page.body.contains("undo that"), "{}", page.body);
    assert_eq!(world.curl().get(URL).status, 200, "and the honest one is still served");
}

#[test]
fn the_built_in_table_knows_curl_by_itself() {
    let world = World::new(|config| {
        config.without("fingerprints").replace(
            "      - {name: managed,",
            "      - {name: scripts, when: {wire.stack: openssl, http.path: /script}, then: block}\n      - {name: managed,",
        )
    });
    for curl in [world.curl().http1(), world.curl().http2()] {
        let answer = curl.clone().get(URL);
        let line = world.line(&answer);
        assert_eq!((answer.status, &line["tier"], &line["confidence"]), (200, &json!("healthy"), &json!("corroborated")), "{line}");
        assert_eq!((&line["wire"]["stack"], &line["contradictions"]), (&json!(["openssl"]), &json!([])), "{line}");
        assert!(line["wire"]["browser"].as_array().unwrap().contains(&json!("curl")), "{line}");
        let nameless = world.line(&curl.clone().arg("-A").arg("").get(URL));
        assert_eq!((&nameless["tier"], &nameless["contradictions"]), (&json!("healthy"), &json!([])), "{nameless}");
        for liar in [CHROME, FIREFOX] {
            let line = world.line(&curl.clone().header(liar).get(URL));
            assert_eq!((&line["tier"], &line["confidence"]), (&json!("known"), &json!("contradicted")), "{line}");
            assert_eq!(line["contradictions"][0]["kind"], "ua_browser_vs_tls", "{line}");
        }
        assert_eq!(curl.get("https://wiki.corp.example/script").json()["reasons"], json!(["wire.stack"]));
    }
}

#[test]
fn claims_that_change_within_a_connection_are_compared_anew() {
    let world = World::new(|config| config);
    let ask = |agent: &str| format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{agent}\r\n\r\n");
    let mut live = RawTls::connect(&world.proxy, &world.lab, HOST, Some(&world.laptop));
    let mut tier = |agent: &str, nth: usize| {
        assert!(live.ask(&ask(agent)).starts_with("HTTP/1.1 200 "));
        let line = world.lab.decisions(nth)[nth - 1].clone();
        (line["tier"].as_str().unwrap().to_owned(), line["confidence"].as_str().unwrap().to_owned(), line["wire"]["ja4_stable"].clone())
    };
    let (_, _, ja4) = tier("User-Agent: curl/8.5.0", 1);
    world.table(
        &format!("rows: [{{name: ours, stack: our-rustls, browsers: [curl], tls: {{ja4: [{}]}}}}]\n", ja4.as_str().unwrap()),
        "success",
    );
    for (nth, agent, expected) in [
        (2, "User-Agent: curl/8.5.0", ("healthy", "corroborated")),
        (3, CHROME, ("known", "contradicted")),
        (4, CHROME, ("known", "contradicted")),
        (5, "User-Agent: curl/8.5.0", ("healthy", "corroborated")),
        (6, "X-No: agent", ("healthy", "claimed")),
        // Hints come with the second request: their absence before says nothing, nor does their presence.
        (7, FIREFOX, ("known", "contradicted")),
    ] {
        let (tier, confidence, _) = tier(agent, nth);
        assert_eq!((tier.as_str(), confidence.as_str()), expected, "{nth} {agent}");
    }
    let kinds = world.proxy.metrics();
    assert_eq!(kinds.sum(CONTRADICTIONS, &[("kind", "ua_browser_vs_tls")]), 1.0, "once for the connection");
}

#[test]
fn the_operators_table_is_read_again_when_it_changes_and_a_bad_one_is_refused() {
    let world = World::new(|config| {
        config.replace("{name: rest, then: block}", "{name: rest, then: block}\n      ").replace(
            "      - {name: managed,",
            "      - {name: ours, when: {wire.stack: our-rustls}, then: block}\n      - {name: managed,",
        )
    });
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut live = RawTls::connect(&world.proxy, &world.lab, HOST, Some(&world.laptop));
    assert!(live.ask(&get).starts_with("HTTP/1.1 200 "));
    let before = world.lab.decisions(1)[0]["wire"].clone();
    assert_ne!(before["stack"], json!(["our-rustls"]));
    let row = format!("{{name: ours, stack: our-rustls, browsers: [rust], tls: {{ja4: [{}]}}}}", before["ja4_stable"].as_str().unwrap());
    world.table(&format!("rows:\n  - {row}\n"), "success");
    assert!(live.ask(&get).starts_with("HTTP/1.1 403 "), "a live connection is identified anew");
    let line = world.lab.decisions(2)[1].clone();
    assert_eq!(
        (&line["wire"]["stack"], &line["wire"]["browser"], &line["rule"]),
        (&json!(["our-rustls"]), &json!(["rust"]), &json!("ours"))
    );

    // Where a person would look for the mistake.
    let said = world.proxy.stderr().len();
    world.table(&format!("rows:\n  - {row}\n  - {{name: more, stak: x, syn: ['*']}}\n"), "failure");
    let said = eventually("the failure is said", || Some(world.proxy.stderr()[said..].to_owned()).filter(|said| said.contains("stak")));
    assert!(said.contains("table.yaml:3:18: error: rows[1].stak: unknown key `stak`; did you mean `stack`?"), "{said}");
    assert!(said.contains("the old one stays in force"), "{said}");
    assert!(live.ask(&get).starts_with("HTTP/1.1 403 "), "what was known is known still");
    let check = world.lab.vestibule(&["check", "-c", "vestibule.yaml"]);
    assert_eq!(check.code, Some(1));
    assert!(check.stderr.contains("table.yaml:3:18") || check.stdout.contains("table.yaml:3:18"), "{}{}", check.stdout, check.stderr);
    world.table("rows: []\n", "success");
    assert!(live.ask(&get).starts_with("HTTP/1.1 200 "));
    let check = world.lab.vestibule(&["check", "-c", "vestibule.yaml"]);
    let told = format!("{}{}", check.stdout, check.stderr);
    assert!(told.contains("names the stack `our-rustls`: this never matches"), "a rule that no row serves is told of: {told}");
}

#[test]
fn a_missing_table_is_told_at_its_place() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    lab.configure(&Config::new(&origin).set("fingerprints", "{known: no-such.yaml}"));
    let check = lab.vestibule(&["check", "-c", "vestibule.yaml"]);
    let told = format!("{}{}", check.stdout, check.stderr);
    assert_eq!(check.code, Some(1), "{told}");
    assert!(told.contains("error: fingerprints.known: ") && told.contains("no-such.yaml: cannot read"), "{told}");
}

/// Tier, confidence and whether the SYN's contradiction is a strong one, of a client that says Windows over the SYN of this machine.
fn over_a_linux_syn(syn: &str) -> (String, String, Value) {
    let world = World::new(|config| config.set("networks", &format!("{{here: {{ranges: [127.0.0.0/8], syn: {syn}}}}}")));
    let rows = world.rows_for_curl("browsers: [firefox]") + "  - {name: linux, os: [linux, android], syn: ['*']}\n";
    world.table(&rows, "success");
    let answer = world.curl().http1().header(FIREFOX).get(URL);
    let line = world.line(&answer);
    assert!(line["wire"]["syn"].is_string(), "this machine saves SYNs: {line}");
    let found = line["contradictions"][0].clone();
    assert_eq!((&found["kind"], &found["claimed"]), (&json!("ua_os_vs_syn"), &json!("windows")), "{line}");
    (line["tier"].as_str().unwrap().to_owned(), line["confidence"].as_str().unwrap().to_owned(), found["strong"].clone())
}

#[test]
fn a_syn_counts_only_where_the_network_says_that_it_is_the_clients_own() {
    assert_eq!(over_a_linux_syn("direct"), ("known".to_owned(), "contradicted".to_owned(), json!(true)));
    let (tier, _, strong) = over_a_linux_syn("relayed");
    assert_eq!((tier.as_str(), strong), ("healthy", json!(false)));
}

#[test]
fn a_record_of_another_system_contradicts_the_wire() {
    let world = World::new(|config| config.set("networks", "{here: {ranges: [127.0.0.0/8], syn: direct}}"));
    let mac = world.lab.device("mac", &format!("{FIT} os=macOS"));
    let linux = world.lab.device("linux", &format!("{FIT} os=linux"));
    let rows = world.rows_for_curl("browsers: [curl]") + "  - {name: linux, os: [linux, android], syn: ['*']}\n";
    world.table(&rows, "success");
    let line = |device: &Issued| world.line(&Curl::to(&world.proxy, &world.lab).device(device).get(URL));
    let (mac, linux) = (line(&mac), line(&linux));
    assert_eq!((&mac["tier"], &mac["contradictions"][0]["kind"]), (&json!("known"), &json!("record_os_vs_wire")), "{mac}");
    assert_eq!((&linux["tier"], &linux["contradictions"]), (&json!("healthy"), &json!([])), "{linux}");
}

#[test]
fn hints_are_asked_for_over_https_and_an_apps_own_wish_stands() {
    let world = World::new(|config| config.set("fingerprints", "{accept_ch: [Sec-CH-UA-Model, Sec-CH-UA-Platform-Version]}"));
    let asked = |answer: Answer| answer.header("accept-ch").map(str::to_owned);
    let hints = Some("Sec-CH-UA-Model, Sec-CH-UA-Platform-Version".to_owned());
    assert_eq!(asked(world.curl().http1().get(URL)), hints);
    assert_eq!(asked(world.curl().http2().get(URL)), hints);
    assert_eq!(asked(world.curl().get("https://wiki.corp.example/hints")).as_deref(), Some("Sec-CH-UA-Arch"));
    let own = Curl::to(&world.proxy, &world.lab).header("Accept: text/html").get(URL);
    assert_eq!((own.status, asked(own)), (403, hints), "pages of our own ask as well");
    let plain = Curl::at(world.proxy.addr("plain")).get("http://wiki.localhost/");
    assert_eq!((plain.status, plain.header("accept-ch")), (403, None));

    let quiet = World::new(|config| config);
    assert_eq!(asked(quiet.curl().get(URL)), None, "nobody is asked unless the operator wants it");
}

#[test]
fn one_stack_under_an_offices_browsers_is_a_middlebox_and_their_claims_stand() {
    let world = World::new(|config| config);
    // Of this machine's own system, which the SYN shows.
    let [chrome, firefox] = [CHROME, FIREFOX].map(|claim| claim.replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64"));
    let as_browser = |name: &str, claim: &str| {
        let device = world.lab.device(name, FIT);
        world.line(&Curl::to(&world.proxy, &world.lab).device(&device).header(claim).get(URL))
    };
    let intercepted = |line: &Value| line["wire"]["intercepted"].clone();
    // Three devices of one make are one browser that nobody knows; a fourth client of another make is one liar more.
    for name in ["a", "b", "c"] {
        let line = as_browser(name, &chrome);
        assert_eq!((intercepted(&line), &line["contradictions"][0]["kind"]), (json!(false), &json!("ua_browser_vs_tls")), "{line}");
    }
    for name in ["d", "e"] {
        assert_eq!(intercepted(&as_browser(name, &firefox)), json!(false), "{name}");
    }
    let line = as_browser("f", &firefox);
    assert_eq!((intercepted(&line), &line["contradictions"]), (json!(true), &json!([])), "{line}");
    let line = as_browser("g", &chrome);
    assert_eq!((&line["tier"], intercepted(&line), &line["contradictions"]), (&json!("healthy"), json!(true), &json!([])), "{line}");
    // Another stack from the same place is judged by itself.
    let other = world.line(&world.curl().http1().arg("--tls-max").arg("1.2").header(&chrome).get(URL));
    assert_eq!((intercepted(&other), &other["contradictions"][0]["kind"]), (json!(false), &json!("ua_browser_vs_tls")), "{other}");
}
