//! `vestibule certs`: a lab CA.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::failure::Failure;
use super::lab_ca::{DEFAULT_HOSTS, DEVICES, EDGE_CA, Issued, LabCa, Revoked, Validity};

/// Run a lab CA: certificates for the edge and for devices
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the CA, the edge's certificate and an empty revocation list: the files that config/vestibule.yaml names
    Init(Init),
    /// Make a key and a certificate for a device
    Issue(Issue),
    /// Put a device's certificates on the revocation list
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Names and addresses of the edge's certificate
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', num_args = 1, default_values = DEFAULT_HOSTS)]
    hosts: Vec<String>,
    /// Replace files that exist; certificates of the old CA are worth nothing then
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// The device's name: devices/NAME.pem and devices/NAME.key
    name: String,
    /// Where the CA is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// How long the certificate is valid
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "not_after")]
    days: i64,
    /// Valid from this date or time (2026-01-31, or RFC 3339) instead of now
    #[arg(long, value_name = "DATE", value_parser = moment)]
    not_before: Option<Timestamp>,
    /// Valid until this date or time instead of --days from now
    #[arg(long, value_name = "DATE", value_parser = moment)]
    not_after: Option<Timestamp>,
    /// Replace the files of this name; the old certificate stays valid until the name is revoked
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// The device's name; without one, the list is only published anew
    name: Option<String>,
    /// Where the CA is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Days until the next list is due; past it, the edge trusts no certificate of this CA
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..))]
    days: i64,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let text = match args.command {
        Command::Init(init) => {
            let ca = LabCa::create(&init.dir, &init.hosts, init.force)?;
            made(&init, &ca)
        }
        Command::Issue(issue) => {
            let default = Validity::days(issue.days);
            let validity = Validity { from: issue.not_before.unwrap_or(default.from), until: issue.not_after.unwrap_or(default.until) };
            issued(&issue, &LabCa::open(&issue.dir)?.issue(&issue.name, validity, issue.force)?)
        }
        Command::Revoke(revoke) => {
            let done = LabCa::open(&revoke.dir)?.revoke(revoke.name.as_deref(), Validity::days(revoke.days))?;
            revoked(&revoke, &done)
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn made(init: &Init, ca: &LabCa) -> String {
    let dir = init.dir.display();
    let hosts = init.hosts.join(", ");
    let mut text = format!(
        "\
edge      {dir}/edge.pem, {dir}/edge.key
          for {hosts}
devices   {dir}/device-ca.pem, {dir}/device-ca.key, {dir}/device-crl.pem
clients   trust {}: `curl --cacert {dir}/{EDGE_CA} ...`
          (its key was not kept: nothing else can be signed in its name)

a certificate for a device:
  vestibule certs issue laptop{}
",
        ca.edge_ca().display(),
        dir_option(&init.dir),
    );
    if init.force && init.dir.join(DEVICES).exists() {
        text.push_str(&format!("\n{dir}/{DEVICES} holds certificates of a CA that is no more: issue them anew with --force\n"));
    }
    text
}

fn issued(issue: &Issue, done: &Issued) -> String {
    let Issue { name, .. } = issue;
    format!(
        "\
certificate  {}
             valid until {}
key          {}
spki_sha256  {spki}

register it:
  vestibule devices -c config/vestibule.yaml set {name} --create state=approved ownership=corporate \\
    keys=spki_sha256:{spki}
",
        done.cert.display(),
        whole_seconds(done.until),
        done.key.display(),
        spki = done.spki_sha256,
    )
}

fn revoked(revoke: &Revoke, done: &Revoked) -> String {
    let what = match (&revoke.name, done.added.len()) {
        (None, _) => "no certificate was added".to_owned(),
        (Some(name), 0) => format!("every certificate of {name} was on it already"),
        (Some(name), _) => format!("added those of {name}: {}", done.added.join(", ")),
    };
    format!(
        "\
revocation list  {}, number {}, {}
                 {what}
next list due    {}
",
        done.crl.display(),
        done.number,
        super::check::counted(done.total, "certificate"),
        whole_seconds(done.next_update),
    )
}

fn whole_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn dir_option(dir: &Path) -> String {
    if dir == Path::new("certs") { String::new() } else { format!(" --dir {}", dir.display()) }
}

/// A date is midnight UTC.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let date: Date = text.parse().map_err(|_| "write 2026-01-31 or 2026-01-31T12:00:00Z".to_owned())?;
    date.to_zoned(TimeZone::UTC).map(|z| z.timestamp()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn certs(words: &[&str]) -> Result<(), Failure> {
        run(Cli::try_parse_from([&["certs"], words].concat()).map_err(|e| Failure(e.to_string()))?.args)
    }

    #[test]
    fn init_issue_revoke() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ca");
        let at = ["--dir", dir.to_str().unwrap()];
        let with = |words: &[&'static str]| certs(&[words, &at[..]].concat());
        assert!(with(&["issue", "laptop"]).is_err_and(|f| f.0.contains("certs init")));
        with(&["init", "--hosts", "a.example,10.0.0.1"]).unwrap();
        assert!(with(&["init"]).is_err_and(|f| f.0.contains("--force")));
        with(&["issue", "laptop", "--days", "7"]).unwrap();
        with(&["issue", "old", "--not-before", "2020-01-01", "--not-after", "2021-01-01T00:00:00Z"]).unwrap();
        with(&["revoke", "laptop"]).unwrap();
        assert!(with(&["issue", "x", "--days", "0"]).is_err());
        assert!(with(&["issue", "x", "--days", "1", "--not-after", "2030-01-01"]).is_err());
        assert!(with(&["issue", "x", "--not-after", "tomorrow"]).is_err_and(|f| f.0.contains("2026-01-31")));
        assert!(with(&["init", "--hosts", ""]).is_err());
    }

    #[test]
    fn the_register_command_names_device_and_key() {
        let issue = Cli::try_parse_from(["certs", "issue", "laptop"]).unwrap().args;
        let Command::Issue(issue) = issue.command else { panic!("not issue") };
        let done = Issued {
            cert: "certs/devices/laptop.pem".into(),
            key: "certs/devices/laptop.key".into(),
            spki_sha256: "ab".repeat(32),
            serial: "01".into(),
            until: Timestamp::UNIX_EPOCH,
        };
        let text = issued(&issue, &done);
        assert!(text.contains("set laptop --create ") && text.contains(&format!("keys=spki_sha256:{}", done.spki_sha256)), "{text}");
    }
}
