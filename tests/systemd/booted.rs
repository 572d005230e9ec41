//! The units as systemd runs them: it is the first process of namespaces of its own, with config/systemd as its units, their users, their confinement
//! and their ports. Nothing outside of the namespaces is touched.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use vestibule::cli::scrape;

use super::*;

/// As root, by sudo where it has to be. It takes one or the other, and fails without.
fn as_root(name: &str) -> Command {
    // SAFETY: it only reads.
    #[allow(unsafe_code)]
    let root = unsafe { libc::geteuid() } == 0;
    if root {
        return Command::new(name);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", name]);
    command
}

/// Ended, with all that runs in it, when dropped; and with the test, however that ends.
struct Booted {
    outer: Child,
    line: Option<ChildStdin>,
    pid: String,
}

impl Booted {
    /// `folder` becomes /etc/vestibule, and belongs to the service's user.
    fn start(folder: &Path) -> Self {
        drop(program("systemctl"));
        let mut command = as_root("unshare");
        command.args(["--mount", "bash", "-c", OUTER, "outer", INNER]).arg(env!("CARGO_BIN_EXE_vestibule")).arg(folder);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd"));
        let mut outer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`unshare` of util-linux runs");
        let line = outer.stdin.take();
        let mut pid = String::new();
        BufReader::new(outer.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let booted = Self { outer, line, pid: pid.trim().to_owned() };
        assert!(!booted.pid.is_empty(), "systemd needs namespaces of its own: root, or sudo without a password, with CAP_SYS_ADMIN");
        eventually("systemd is up", || (booted.run(&["systemctl", "is-system-running"]).1.trim() == "running").then_some(()));
        booted
    }

    /// A command in there: whether it succeeded, and what it said.
    fn run(&self, command: &[&str]) -> (bool, String) {
        let mut enter = as_root("nsenter");
        enter.args(["--target", &self.pid, "--mount", "--pid", "--net", "--cgroup"]).args(command);
        let output = enter.stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    #[track_caller]
    fn succeeds(&self, command: &[&str]) -> String {
        let (done, said) = self.run(command);
        assert!(done, "{command:?}: {said}\n{}", self.wrote());
        said
    }

    fn systemctl(&self, verb: &str, unit: &str) -> String {
        self.succeeds(&["systemctl", verb, unit])
    }

    /// What the program wrote to standard error.
    fn wrote(&self) -> String {
        self.run(&["cat", "/run/log/vestibule"]).1
    }

    fn property(&self, name: &str) -> String {
        self.succeeds(&["systemctl", "show", "--property", name, "--value", "vestibule.service"]).trim().to_owned()
    }

    /// Waits until a property is what the test wants.
    #[track_caller]
    fn becomes(&self, name: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(&format!("{name} becomes what it should"), || Some(self.property(name)).filter(|value| wanted(value)))
    }

    /// The status of a request to a port of the units.
    fn get(&self, url: &str) -> String {
        let ca = "/etc/vestibule/certs/edge-ca.pem";
        self.run(&["curl", "--silent", "--max-time", "20", "--cacert", ca, "--output", "/dev/null", "--write-out", "%{http_code}", url]).1
    }

    fn metric(&self, name: &str, (label, value): (&str, &str)) -> f64 {
        let samples = scrape::read(&self.succeeds(&["curl", "--silent", "--fail", "http://127.0.0.1:9470/metrics"])).unwrap();
        samples.iter().filter(|sample| sample.name == name && sample.label(label) == value).map(|sample| sample.value).sum()
    }

    /// Both ports answer.
    fn serves(&self) {
        assert_eq!(
            (self.get("http://localhost/"), self.get("https://localhost/")),
            ("404".to_owned(), "404".to_owned()),
            "{}",
            self.wrote()
        );
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        drop(self.line.take());
        let _ = self.outer.wait();
    }
}

/// In a mount namespace: a control group for all of it, which is taken away again when standard input ends.
const OUTER: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/all
mount -t cgroup2 none /mnt/all
own=/mnt/all$(sed -n 's/^0:://p' /proc/self/cgroup)
test=$own/vestibule-test-$$
mkdir "$test"
bash -c 'echo $$ >"$0/cgroup.procs"; exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net bash -c "$@"' "$test" "$1" inner "${@:2}" </dev/null &
read -r _ || true
exec 2>/dev/null
kill -9 $! || true
wait || true
for _ in $(seq 500); do
    if find "$test" -depth -type d -exec rmdir {} +; then break; fi
    sleep 0.01
done
"#;

/// In all of them: what systemd and the service may write is memory, and so is /etc; the units are those of the repository. Of the system's own units
/// none is there: stubs of those that ours name have to do.
const INNER: &str = r#"
set -eu
program=$1 folder=$2 units=$3
read -r host _ </proc/self/stat
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/etc /run/bin /run/log
awk '$2 ~ "^/sys/fs/cgroup" { print $2 }' /proc/self/mounts | sort -r | xargs -r -n 1 umount
mount -t cgroup2 none /sys/fs/cgroup
cp -a /etc/. /run/etc
mount --bind /run/etc /etc
rm -rf /etc/systemd/system /etc/vestibule
mkdir /etc/systemd/system /etc/systemd/system/vestibule.service.d
sed -i '/^vestibule:/d' /etc/passwd /etc/group
echo 'vestibule:x:64990:64990::/var/lib/vestibule:/usr/sbin/nologin' >>/etc/passwd
echo 'vestibule:x:64990:' >>/etc/group
touch /run/bin/vestibule
mount --bind "$program" /run/bin/vestibule
for unit in vestibule.service vestibule.socket; do
    sed 's|/usr/bin/vestibule|/run/bin/vestibule|' "$units/$unit" >"/etc/systemd/system/$unit"
done
printf '[Service]\nStandardOutput=append:/run/log/vestibule\nStandardError=append:/run/log/vestibule\nWatchdogSec=4s\n' \
    >/etc/systemd/system/vestibule.service.d/test.conf
for target in basic sysinit shutdown sockets multi-user network-online; do
    printf '[Unit]\nDefaultDependencies=no\n' >"/etc/systemd/system/$target.target"
done
cp -a "$folder" /etc/vestibule
chown -R vestibule: /etc/vestibule
for place in /var/lib /var/log /var/tmp /tmp; do mount -t tmpfs -o mode=1777 none "$place"; done
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH=/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/none
echo "$host"
exec /lib/systemd/systemd --system --unit=basic.target --show-status=no </dev/null >/dev/null 2>&1
"#;

#[test]
fn the_units_run() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    // As docs/operations.md has it.
    let config = Config::new(&origin)
        .replace("- name: edge\n    bind: [\"127.0.0.1:0\"]", "- name: edge\n    bind: [\"0.0.0.0:443\"]")
        .replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", "- name: plain\n    bind: [\"0.0.0.0:80\"]")
        .set("admin", "{bind: \"127.0.0.1:9470\"}")
        .set("store", "{url: \"sqlite:///var/lib/vestibule/vestibule.db\"}")
        .set("decision_log", "{path: /var/log/vestibule/decisions.jsonl}")
        .set("assertion", "{keys: /var/lib/vestibule/assertion-keys}");
    lab.configure(&config);
    let systemd = Booted::start(lab.dir());

    systemd.systemctl("start", "vestibule.service");
    assert_eq!(systemd.property("ActiveState"), "active");
    let first = systemd.property("MainPID");
    let serving = systemd.becomes("StatusText", |status| status.starts_with("serving policy "));
    systemd.serves();
    // Confined as the unit says: its own user, CAP_NET_BIND_SERVICE alone, no new privileges, a filter of system calls.
    let status = systemd.succeeds(&["cat", &format!("/proc/{first}/status")]);
    for line in
        ["Uid:\t64990\t64990\t64990\t64990", "CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert!(systemd.succeeds(&["ls", "/var/lib/vestibule", "/var/log/vestibule"]).contains("decisions.jsonl"));

    // A reload that is asked for is one, whether a file has changed or not.
    let reloads = || systemd.metric("vestibule_config_reload_total", ("result", "success"));
    let before = reloads();
    systemd.systemctl("reload", "vestibule.service");
    eventually("it is taken anew", || (reloads() > before).then_some(()));
    systemd.succeeds(&["sed", "-i", "s/name: rest/name: others/", "/etc/vestibule/vestibule.yaml"]);
    let serving = systemd.becomes("StatusText", |status| status.starts_with("serving policy ") && status != serving);

    // Another process, by its own word: the same service, which systemd goes on watching.
    systemd.succeeds(&["systemctl", "kill", "--kill-who=main", "--signal=SIGUSR2", "vestibule.service"]);
    let second = systemd.becomes("MainPID", |pid| pid != first);
    systemd.becomes("StatusText", |status| status == serving);
    systemd.serves();
    for _ in 0..3 {
        let heard = systemd.property("WatchdogTimestampMonotonic");
        systemd.becomes("WatchdogTimestampMonotonic", |now| now != heard);
    }
    assert_eq!((systemd.property("MainPID"), systemd.property("NRestarts")), (second.clone(), "0".to_owned()), "{}", systemd.wrote());

    // One that says nothing any more is ended, and started anew.
    systemd.succeeds(&["kill", "-STOP", &second]);
    systemd.becomes("NRestarts", |restarts| restarts == "1");
    systemd.becomes("StatusText", |status| status == serving);
    systemd.serves();
    systemd.systemctl("stop", "vestibule.service");
    let end = ["ActiveState", "Result", "ExecMainStatus"].map(|name| systemd.property(name));
    assert_eq!(end, ["inactive", "success", "0"], "{}", systemd.wrote());

    // With systemd's own sockets: who comes first starts the service, and the next process has them too.
    systemd.systemctl("start", "vestibule.socket");
    assert_eq!(systemd.property("MainPID"), "0");
    systemd.serves();
    let third = systemd.property("MainPID");
    systemd.succeeds(&["systemctl", "kill", "--kill-who=main", "--signal=SIGUSR2", "vestibule.service"]);
    systemd.becomes("MainPID", |pid| pid != third);
    systemd.serves();
    assert!(systemd.systemctl("is-active", "vestibule.socket").contains("active"));
}
