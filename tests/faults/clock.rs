//! Clocks that jump, by hours: the program runs with libfaketime below it, which adds what a file says to the time of day, and leaves the monotonic
//! clock alone as a jump does.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};

use vestibule::cli::lab_ca::Validity;

use super::support::{Lab, Origin, Proxy, RawTls, Reply, eventually, program};
use super::{FIT, HOST, config, gauge, get};

const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n";

/// Where the library is, says the program that comes with it.
fn library() -> String {
    let output = program("faketime").args(["-m", "-f", "+1h", "sh", "-c", "echo $LD_PRELOAD"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let path = said.trim().to_owned();
    assert!(path.contains("libfaketime"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    path
}

struct Clock<'a>(&'a Lab);

impl Clock<'_> {
    fn set(&self, offset: &str) {
        std::fs::rename(self.0.write("clock.next", offset), self.0.path("clock")).unwrap();
    }

    fn below(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", self.0.path("clock"));
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

#[test]
fn the_clock_jumps_by_hours_both_ways_and_nobody_is_cut_off() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin).set("store", r#"{url: "sqlite://vestibule.db", cache: {ttl: 100ms, negative_ttl: 100ms}}"#);
    let file = lab.configure(&config);
    // Issued long before, for long after: what is young is not yet valid once the clock goes back.
    let at = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
    let laptop = lab.ca.issue("laptop", Validity { from: at(-2), until: at(90) }, false).unwrap();
    let key = format!("keys=spki_sha256:{}", laptop.spki_sha256);
    let mut add = vec!["devices", "-c", "vestibule.yaml", "set", "laptop", "--create", &key];
    add.extend(FIT.split(' '));
    lab.vestibule(&add).succeeded();
    let clock = Clock(&lab);
    clock.set("+0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    clock.below(&mut command);
    let proxy = Proxy::start_by(command, lab.dir(), &file);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    for offset in ["+9h", "-9h", "+9h", "+0"] {
        clock.set(offset);
        let hours = offset.trim_end_matches('h').parse::<i64>().unwrap();
        let told = Timestamp::now() + SignedDuration::from_hours(hours);
        // It has jumped: the log says when.
        eventually(&format!("the clock is at {offset}"), || {
            assert!(live.ask(GET).starts_with("HTTP/1.1 200 "), "a connection that is there goes on; the facts are of the last hours");
            let at: Timestamp = lab.decisions(1).last()?["ts"].as_str()?.parse().ok()?;
            (at.duration_since(told).abs() < SignedDuration::from_mins(5)).then_some(())
        });
        let began = std::time::Instant::now();
        assert_eq!(get(&proxy, &lab, &laptop).status, 200, "at {offset}");
        assert!(began.elapsed().as_secs() < 5, "timers are not of the time of day");
        // An age is never below zero, and the feed of changes goes on.
        assert!(gauge(&proxy, "vestibule_posture_age_seconds") >= 0.0);
        assert_eq!((gauge(&proxy, "vestibule_store_up"), proxy.admin_get("/readyz").0), (1.0, 200));
        lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "laptop", "state=suspended"]).succeeded();
        eventually("a change is heard of", || live.ask(GET).starts_with("HTTP/1.1 403 ").then_some(()));
        lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "laptop", "state=approved"]).succeeded();
        eventually("and its end", || live.ask(GET).starts_with("HTTP/1.1 200 ").then_some(()));
    }
    // What is older than its source permits is unknown by the clock that there is: sixty days ahead, the facts of today have ended.
    clock.set("+60d");
    eventually("the facts have ended", || live.ask(GET).contains("cache-control: no-store").then_some(()));
    clock.set("+0");
    eventually("and are back", || (!live.ask(GET).contains("cache-control: no-store")).then_some(()));
}

#[test]
fn a_fact_from_the_future_is_refused() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    lab.configure(&config(&origin));
    lab.device("laptop", FIT);
    let clock = Clock(&lab);
    // Who writes has a clock that is six minutes, or six hours, behind: what others saw is in its future.
    let seen = Timestamp::now();
    let csv = lab.write("fleet.csv", &format!("id,source,posture.mdm_compliant,observed_at\nlaptop,mdm,ok,{seen}\n"));
    let import = |offset: &str| {
        clock.set(offset);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        clock.below(&mut command);
        let args = ["devices", "-c", "vestibule.yaml", "import", csv.to_str().unwrap()];
        super::support::Run::from(command.args(args).current_dir(lab.dir()).output().unwrap())
    };
    for behind in ["-6h", "-360"] {
        import(behind).failed_with(&["observed_at", "more than 5 minutes in the future"]);
    }
    import("-60").succeeded();
}
