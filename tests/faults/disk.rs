//! A disk that is full: a file system of its own with hardly any room.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use super::support::tun::inside;
use super::support::{Curl, Lab, Origin, Reply, eventually};
use super::{FIT, HOST, config, gauge, get};

fn fill(path: &std::path::Path) {
    let mut file = File::create(path).unwrap();
    let mut piece = vec![0; 1 << 16];
    while !piece.is_empty() {
        match file.write(&piece) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_disk_stops_no_request_and_costs_no_device() {
    inside("disk::a_full_disk_stops_no_request_and_costs_no_device", || {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let origin = Origin::answering(Reply::text("hello"));
        let lab = Lab::new();
        let disk = lab.path("disk");
        fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&disk).status().unwrap();
        assert!(mounted.success());
        let config = config(&origin)
            .set("store", r#"{url: "sqlite://disk/vestibule.db", cache: {ttl: 10ms}}"#)
            .set("decision_log", "{path: disk/decisions.jsonl}");
        lab.configure(&config);
        let (laptop, later) = (lab.device("laptop", FIT), lab.certificate("later"));
        let proxy = lab.start(&config);
        assert_eq!(get(&proxy, &lab, &laptop).status, 200);
        assert_eq!(gauge(&proxy, "vestibule_decision_log_up"), 1.0);
        // With a line in the log there is room for a part of some next one, and no more.
        proxy.metric_reaches("vestibule_decision_log_total", &[("result", "written")], 1.0);
        fill(&disk.join("filler"));
        // Requests go on; what cannot be written is counted and shown.
        eventually("the log is down", || {
            assert_eq!(get(&proxy, &lab, &laptop).status, 200);
            (gauge(&proxy, "vestibule_decision_log_up") == 0.0).then_some(())
        });
        assert_eq!(Curl::at(proxy.addr("plain")).get(&format!("http://{HOST}/")).status, 403);
        // A device is added, or it is said that it is not.
        let key = format!("keys=spki_sha256:{}", later.spki_sha256);
        let mut add = vec!["devices", "-c", "vestibule.yaml", "set", "later", "--create", &key];
        add.extend(FIT.split(' '));
        lab.vestibule(&add).failed_with(&["vestibule.db"]);
        assert_eq!(get(&proxy, &lab, &later).status, 403, "it was not added");
        assert_eq!(get(&proxy, &lab, &laptop).status, 200);
        fs::remove_file(disk.join("filler")).unwrap();
        lab.vestibule(&add).succeeded();
        eventually("the new device is let in", || (get(&proxy, &lab, &later).status == 200).then_some(()));
        proxy.metric_reaches("vestibule_decision_log_up", &[], 1.0);
        assert_eq!(gauge(&proxy, "vestibule_store_up"), 1.0);
        let text = fs::read_to_string(disk.join("decisions.jsonl")).unwrap();
        let broken = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
        assert_eq!(broken, 0, "no line is cut: {text}");
    });
}
