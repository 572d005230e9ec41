//! `vestibule devices blind` and `baseline`, and what `show` says of stacks.

use jiff::Timestamp;
use serde::Serialize;

use super::Shape;
use crate::cli::failure::Failure;
use crate::cli::print::{ago, print, print_bytes, table};
use crate::model::Word;
use crate::posture::baseline::Spoken;
use crate::posture::blind;
use crate::posture::record::Json;
use crate::posture::store::Store;
use crate::posture::store::memory::{Remembered, Said, Saying, Texts};
use crate::posture::values::By;

/// A stack in the JSON form.
#[derive(Serialize)]
struct Stack<'a> {
    stack: &'a str,
    /// `false`: a drift.
    own: bool,
    ja4_stable: Option<&'a str>,
    h2: Option<&'a str>,
    syn: Option<&'a str>,
    first_seen: String,
    last_seen: String,
}

/// What a device speaks.
#[derive(Serialize)]
pub struct Stacks<'a> {
    drift: bool,
    stacks: Vec<Stack<'a>>,
}

/// A record with its stacks.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    device: Json<'a>,
    #[serde(flatten)]
    stacks: Stacks<'a>,
}

/// One device of `baseline`.
#[derive(Serialize)]
struct Line<'a> {
    device: &'a str,
    #[serde(flatten)]
    stacks: Stacks<'a>,
}

impl<'a> Stacks<'a> {
    fn of(remembered: Option<&'a Remembered>) -> Self {
        let stacks = remembered.into_iter().flat_map(|remembered| &remembered.stacks);
        let stacks: Vec<Stack<'a>> = stacks.map(Stack::of).collect();
        Self { drift: stacks.iter().any(|stack| !stack.own), stacks }
    }
}

impl<'a> Stack<'a> {
    fn of((spoken, texts): &'a (Spoken, Texts)) -> Self {
        Self {
            stack: &texts.stack,
            own: spoken.own,
            ja4_stable: texts.ja4.as_deref(),
            h2: texts.opening.as_deref(),
            syn: texts.signature.as_deref(),
            first_seen: format!("{:.3}", spoken.first),
            last_seen: format!("{:.3}", spoken.last),
        }
    }
}

/// `show --format json`.
pub fn shown(device: Json<'_>, remembered: Option<&Remembered>) -> String {
    pretty(&Shown { device, stacks: Stacks::of(remembered) })
}

/// What `show` prints below a device.
pub fn stacks(remembered: Option<&Remembered>, now: Timestamp) -> String {
    let Some(remembered) = remembered.filter(|remembered| !remembered.stacks.is_empty()) else { return "no stacks seen\n".to_owned() };
    let mut rows = vec![["STACK", "OWN", "FIRST", "LAST", "JA4_STABLE", "H2", "SYN"].map(str::to_owned).to_vec()];
    for (spoken, texts) in &remembered.stacks {
        // A layer that was seen and has no text is kept as its hash alone.
        let layer = |text: &Option<String>, hash: Option<u64>| match (text, hash) {
            (Some(text), _) => text.clone(),
            (None, Some(hash)) => format!("#{hash:016x}"),
            (None, None) => "-".to_owned(),
        };
        rows.push(vec![
            texts.stack.clone(),
            if spoken.own { "yes" } else { "no: drift" }.to_owned(),
            ago(spoken.first, now),
            ago(spoken.last, now),
            layer(&texts.ja4, Some(spoken.stack.tls)),
            layer(&texts.opening, spoken.stack.h2),
            layer(&texts.signature, spoken.stack.syn),
        ]);
    }
    let mut text = table(&rows);
    if let Some(Said { what, by, at }) = &remembered.said {
        text.push_str(&format!("{} by {by} {}\n", what.as_str(), ago(*at, now)));
    }
    text
}

/// The devices that drift, or one device.
pub fn baseline(store: &Store, id: Option<&str>, format: Shape, now: Timestamp) -> Result<(), Failure> {
    let ids = match id {
        Some(id) => vec![id.to_owned()],
        None => store.drifting()?,
    };
    let mut all = Vec::new();
    for id in ids {
        all.push((store.remembered_of(&id)?, id));
    }
    match (format, id) {
        (Shape::Table, Some(_)) => print(&all.iter().map(|(one, _)| stacks(one.as_ref(), now)).collect::<String>()),
        (Shape::Table, None) if all.is_empty() => print("no device drifts\n"),
        (Shape::Table, None) => {
            let mut rows = vec![["DEVICE", "STACK", "FIRST", "LAST"].map(str::to_owned).to_vec()];
            for (one, id) in &all {
                let drifts = one.iter().flat_map(|one| &one.stacks).filter(|(spoken, _)| !spoken.own);
                rows.extend(
                    drifts.map(|(spoken, texts)| vec![id.clone(), texts.stack.clone(), ago(spoken.first, now), ago(spoken.last, now)]),
                );
            }
            print(&table(&rows))
        }
        (Shape::Json, Some(id)) => print(&pretty(&Line { device: id, stacks: Stacks::of(all.first().and_then(|(one, _)| one.as_ref())) })),
        (Shape::Json, None) => {
            print(&pretty(&all.iter().map(|(one, id)| Line { device: id, stacks: Stacks::of(one.as_ref()) }).collect::<Vec<_>>()))
        }
        (Shape::Csv, _) => {
            let mut out = csv::Writer::from_writer(Vec::new());
            out.write_record(["device", "stack", "own", "first_seen", "last_seen", "ja4_stable", "h2", "syn"])?;
            for (one, id) in &all {
                for stack in Stacks::of(one.as_ref()).stacks {
                    let own = stack.own.to_string();
                    let text = |text: Option<&'_ str>| text.unwrap_or_default().to_owned();
                    let (ja4, h2, syn) = (text(stack.ja4_stable), text(stack.h2), text(stack.syn));
                    out.write_record([id, stack.stack, &own, &stack.first_seen, &stack.last_seen, &ja4, &h2, &syn])?;
                }
            }
            print_bytes(&out.into_inner().map_err(|error| Failure(error.to_string()))?)
        }
    }
}

pub fn say(store: &mut Store, id: &str, what: Saying, by: &By, now: Timestamp) -> Result<(), Failure> {
    if !store.say(id, what, by, now)? {
        return Err(Failure(format!("{id}: nothing was seen of this device yet")));
    }
    print(&match what {
        Saying::Accepted => format!("{id}: accepted; every stack that was seen is the device's own\n"),
        Saying::Forgotten => format!("{id}: forgotten; what it speaks is learned anew with its next visit\n"),
    })
}

pub fn census(store: &Store, format: Shape, now: Timestamp) -> Result<(), Failure> {
    let census = store.blind()?;
    match format {
        Shape::Json => print(&blind::json(&census)),
        Shape::Csv => print_bytes(&blind::csv(&census)?),
        Shape::Table if census.is_empty() => print("no blind devices\n"),
        Shape::Table => {
            let mut rows = vec![["STACK", "OS", "ZONE", "PEERS", "CONNECTIONS", "FIRST", "LAST", "APPS"].map(str::to_owned).to_vec()];
            for counted in &census {
                let seen = &counted.seen;
                let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
                let (stack, os, zone) = match &counted.group {
                    Some(group) => (
                        group.ja4.as_ref().map_or(group.stack.to_string(), |ja4| format!("{} {ja4}", group.stack)),
                        dash(group.os.iter().map(Word::word).collect::<Vec<_>>().join(" ")),
                        dash(group.zone.as_deref().unwrap_or_default().to_owned()),
                    ),
                    None => ("(other)".to_owned(), "-".to_owned(), "-".to_owned()),
                };
                let apps: Vec<String> =
                    seen.apps.iter().map(|asked| format!("{} {} ({})", asked.app, asked.connections, asked.owner)).collect();
                rows.push(vec![
                    stack,
                    os,
                    zone,
                    seen.peers.estimate().to_string(),
                    seen.connections.to_string(),
                    ago(seen.first, now),
                    ago(seen.last, now),
                    apps.join(", "),
                ]);
            }
            print(&table(&rows))
        }
    }
}

fn pretty(value: &impl Serialize) -> String {
    // Texts, numbers and lists always have a JSON form.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
