//! The keys of what the policy says for all apps: restrictions, guardrails, ladders, grants, exceptions, tests.

use super::super::shape::Kind::{
    Apps, Bandwidth, Condition, Count, Date, Duration, Fact, Flag, Given, Name, OneOrMore, Rate, Size, Some, Text, Word,
};
use super::super::shape::Need::{Absent, Default, Required};
use super::super::shape::{Kind, Shape};
use super::{EFFECT, MODE, NAMES, key};

pub static RESTRICTION: Shape = Shape {
    name: "restriction",
    doc: "At least one key. Several restrictions merge to the tighter: methods and allowed paths intersect, denied paths unite, sizes and times take the \
          smaller, two rates both apply.",
    keys: &[
        key(
            "methods",
            Some(&Text("method")),
            Absent("any"),
            "Only these methods; others are refused with 403. What follows a switch of protocols is none of them: WebSockets are open where `CONNECT` stands here as well.",
        ),
        key("paths", Kind::Shape(&PATHS), Absent("any"), "Only some paths of the app; others are refused with 403."),
        key("no_store", Flag, Default("false"), "Nothing stays in the browser's cache."),
        key(
            "attachments",
            Word(&["allow", "block"]),
            Default("allow"),
            "`block`: a response that a browser would save as a file is refused with 403.",
        ),
        key(
            "sandbox",
            Flag,
            Default("false"),
            "Pages run in a `Content-Security-Policy: sandbox` that allows forms, scripts and windows, and no downloads.",
        ),
        key(
            "permissions_policy",
            Some(&Text("feature")),
            Absent("what the app says"),
            "Features of `Permissions-Policy` that no page may use: `camera`, `microphone`, `clipboard-write`.",
        ),
        key("max_body", Size("1", "512GiB"), Absent("`limits.body_size`"), "Bytes of a request's body; beyond it 413."),
        key(
            "max_response",
            Size("1", "512GiB"),
            Absent("unlimited"),
            "Bytes of a response's body. A declared length beyond it is refused with 403; a response that grows past it is cut, and looks cut.",
        ),
        key(
            "requests",
            Rate,
            Absent("any"),
            "Requests of one device to one app (without a device: of one peer address, /64 for IPv6); beyond it 429.",
        ),
        key("burst", Count { min: 1, max: 1_000_000 }, Absent("the count of `requests`"), "Requests at once. Only with `requests`."),
        key(
            "bandwidth",
            Bandwidth("1KiB/s", "512GiB/s"),
            Absent("any"),
            "Bytes a second, both ways together, of one device to one app, as `requests` counts. Beyond it bytes wait; nothing is refused.",
        ),
        key("max_stream", Duration("1s", "30d"), Absent("no end"), "Responses, uploads and WebSockets end by then."),
    ],
};

pub static PATHS: Shape = Shape {
    name: "paths",
    doc: "At least one key. `*` is any run of characters, `/` included: `/wiki/*` is not `/wiki`, so name both.",
    keys: &[
        key("allow", Some(&Text("path")), Absent("any"), "Only paths that one of these matches."),
        key("deny", Some(&Text("path")), Absent("none"), "No path that one of these matches, allowed or not."),
    ],
};

pub static GUARDRAIL: Shape = Shape {
    name: "guardrail",
    doc: "Guardrails and the app's rules are both evaluated; the stricter outcome stands.",
    keys: &[
        key("name", Name, Required, "Stands in the decision log."),
        key("apps", Apps, Absent("every app"), "The apps that it holds for."),
        key("when", Condition, Required, "Undecided counts as true."),
        key("then", EFFECT, Required, "`restrict` or `block`; a guardrail cannot forward."),
        key("with", NAMES, Absent("none"), "Restrictions; with `then: restrict`, and only then."),
        key("mode", MODE, Default("enforce"), "`report`: recorded as what it would have done, then passed over."),
    ],
};

pub static LADDER: Shape = Shape {
    name: "ladder",
    doc: "A guardrail that grows stricter by date. It holds while the fact fails or is unknown; of its steps the last whose date has come is in force, and \
          before the first nothing is. At least one step; each later than the milder one before it. A date is the start of that day in `time_zone`; \
          an RFC 3339 time is exact.",
    keys: &[
        key("report", Date, Absent("no such step"), "From then on it is recorded what the first of `restrict` and `block` would do."),
        key(
            "warn",
            Date,
            Absent("no such step"),
            "From then on people are told, once a day, what will be asked and by when, and may go on.",
        ),
        key("restrict", Date, Absent("no such step"), "From then on requests are restricted by `with`."),
        key("with", Some(&Name), Absent("none"), "Restrictions; with `restrict`, and only then."),
        key("block", Date, Absent("no such step"), "From then on requests are blocked."),
        key("apps", Apps, Absent("every app"), "The apps that it holds for."),
        key("when", Condition, Absent("always"), "Whom it concerns. Undecided counts as true."),
    ],
};

pub static DELEGATION: Shape = Shape {
    name: "delegation",
    doc: "For devices of at least `min_tier`, a rule of the owner's file whose effect is in `may` stands in place of the app's rules in the main file; \
          otherwise both are evaluated and the stricter outcome stands. Guardrails and ladders hold in any case. Where the owner has a \
          grant for an app, a rule of its file for that app with another effect is an error; without any grant such a rule opens nothing.",
    keys: &[
        key("owner", Name, Required, "Whose file."),
        key("apps", Apps, Required, "Apps of that owner."),
        key("min_tier", Name, Required, "Devices of a lower tier are left to both."),
        key("may", Some(&Word(&["restrict", "forward"])), Required, "The effects that the file may decide alone; to block is always free."),
    ],
};

pub static EXCEPTION: Shape = Shape {
    name: "exception",
    doc: "For devices with a record: one (`device`) or those with a tag (`tag`). Either facts count as ok (`check`), or every approved device is let through \
          (`break_glass`). The decision log names those that were used.",
    keys: &[
        key("name", Name, Required, "Stands in the decision log."),
        key("device", Text("device id"), Absent("those of `tag`"), "A record's id. Either this or `tag`."),
        key("tag", Text("tag"), Absent("the one of `device`"), "Every device whose record has this tag."),
        key(
            "check",
            OneOrMore(&Fact),
            Absent("none: `break_glass`"),
            "Posture facts, one or a list, that count as `ok`: `disk_encrypted`. Either this or `break_glass`.",
        ),
        key(
            "break_glass",
            Flag,
            Default("false"),
            "`true`: a device in state `approved` is forwarded, whatever guardrails and rules say. Needs `from`, and ends within 72 hours of it.",
        ),
        key("apps", Apps, Absent("every app"), "Where it holds."),
        key("from", Date, Absent("already"), "A date is the start of that day in `time_zone`; an RFC 3339 time is exact."),
        key("until", Date, Required, "A date is the end of that day in `time_zone`; an RFC 3339 time is exact."),
        key("by", Text("text"), Required, "Who allowed it."),
        key("ticket", Text("text"), Required, "Where it was asked for."),
    ],
};

pub static TEST: Shape = Shape {
    name: "test",
    doc: "What the policy must decide of a situation. `vestibule check` tries each, and fails with the first difference of each that is not met.",
    keys: &[
        key("name", Text("text"), Absent("its place, `tests[3]`"), "For messages."),
        key(
            "given",
            Given,
            Absent("a GET of the app's root by a visitor without a record"),
            "Signals and their values, as `vestibule explain --set` takes them. One that reads `device.` or `posture.` makes the visitor a device with a record. \
             `time.now` is the moment, a date or an RFC 3339 time.",
        ),
        key("app", Name, Required, "Whose request."),
        key("expect", Kind::Either(&EFFECT, &EXPECTED), Required, "The effect, or more of the decision."),
    ],
};

pub static EXPECTED: Shape = Shape {
    name: "expected",
    doc: "At least one key; what is not named may be anything.",
    keys: &[
        key("effect", EFFECT, Absent("any"), "What happens."),
        key("would", EFFECT, Absent("any"), "What would happen were nothing in report mode."),
        key("with", NAMES, Absent("any"), "The names of all restrictions that apply, in any order; `[]` is none."),
        key(
            "rule",
            Text("rule's name"),
            Absent("any"),
            "The rule, guardrail, ladder (`ladder.<fact>`) or exception that decides; `-` is none.",
        ),
        key("class", Name, Absent("any"), "The device's class, `blind` and `unclassified` included."),
        key("tier", Name, Absent("any"), "The device's tier, after caps."),
        key("reason", Text("reason"), Absent("any"), "One of the decision's reasons: `posture.disk_encrypted.fail`."),
    ],
};
