//! The reference, `docs/configuration.md`, from the same table that the checker walks.

use std::fmt::Write;

use super::shape::{COMBINE, Kind, Need, SELECTORS, Shape};
use super::shapes;
use super::signals::{SIGNALS, words};

/// The whole text.
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    for shape in shapes::ALL {
        section(shape, &mut text);
    }
    text.push_str(CONDITIONS);
    let _ = writeln!(text, "| combines | meaning |\n|---|---|");
    for (name, doc) in COMBINE {
        let _ = writeln!(text, "| `{name}` | {doc} |");
    }
    text.push_str("\n| signal | meaning |\n|---|---|\n");
    for signal in SIGNALS {
        let words = words(signal.kind);
        let words = if signal.name.starts_with("claims.") || signal.name == "wire.contradictions" {
            format!(" One of `{}`.", words.join("`, `"))
        } else {
            String::new()
        };
        let _ = writeln!(text, "| `{}` | {}{words} |", signal.name, signal.doc);
    }
    let _ = writeln!(text, "\n## Selectors of apps\n");
    let _ = writeln!(text, "`apps:` of a guardrail or an owner's rule is a list of names, or a map with one of:\n");
    for (name, doc) in SELECTORS {
        let _ = writeln!(text, "- `{name}`: {doc}");
    }
    text.push_str(OWNERS_FILES);
    text
}

fn section(shape: &Shape, text: &mut String) {
    let _ = writeln!(text, "## `{}`\n", shape.name);
    if !shape.doc.is_empty() {
        let _ = writeln!(text, "{}\n", shape.doc);
    }
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in shape.keys {
        let default = match key.need {
            Need::Required => "**required**".to_owned(),
            Need::Default(value) => format!("`{value}`"),
            Need::Absent(means) => means.to_owned(),
        };
        let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.name, value(&key.kind), key.doc);
    }
    text.push('\n');
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Some(of) => format!("list of at least one: {}", value(of)),
        Kind::List(of) => format!("list of: {}", value(of)),
        Kind::Map(of) => format!("map of names to: {}", value(of)),
        Kind::OneOrMore(of) => format!("{}; or a list of them", value(of)),
        Kind::Given => "map of [signals](#conditions) to values".to_owned(),
        Kind::Shape(shape) => format!("[{0}](#{0})", shape.name),
        Kind::Either(list, shape) => format!("{}; or [{1}](#{1})", value(list), shape.name),
        Kind::Condition => "[condition](#conditions)".to_owned(),
        Kind::Apps => "[selector](#selectors-of-apps)".to_owned(),
        Kind::Text(_)
        | Kind::Name
        | Kind::Word(_)
        | Kind::Flag
        | Kind::Count { .. }
        | Kind::CountOr(..)
        | Kind::Duration(..)
        | Kind::Size(..)
        | Kind::Bandwidth(..)
        | Kind::Date
        | Kind::Fact
        | Kind::Rate => kind.words(),
    }
}

const INTRODUCTION: &str = "\
# Configuration reference

One YAML file, plus one file for each owner in `policy_dir`. `config/vestibule.yaml` is a working example with comments.

- `vestibule check -c FILE` prints every error and warning with its place; it exits with 0 when there is no error.
- `vestibule schema` prints a JSON Schema with which editors complete and check: a first line
  `# yaml-language-server: $schema=vestibule.schema.json` names it.
- A key that is not listed here is an error. So is a key that stands twice, and a merge key (`<<`). Anchors and aliases work.
- Only `true` and `false` are booleans. A number where text is meant is an error: write it in quotes, or `14.10` would be `14.1`.
- Relative paths are relative to the main file's folder.
- The policy's revision, in metrics and decision log, is the first 12 hex digits of the SHA-256 over the main file and then the owners' files by name:
  `cat vestibule.yaml policy.d/*.yaml | sha256sum`.

This text is made from the table that checks the configuration.

## Units

| value | how it is written |
|---|---|
| duration | `750ms`, `30s`, `5m`, `2h`, `15d`; always with a unit, never zero |
| size | `512`, `16KiB`, `1MiB`, `1GiB`; never zero |
| rate | `60/m`: also `/s`, `/h`, `/d` |
| bandwidth | `1MiB/s`: a size, for each second |
| date | `2026-12-31`, a day in `time_zone`; or a moment of RFC 3339, `2026-12-31T18:00:00Z` |
| network | CIDR, `10.0.0.0/8` or `2001:db8::/32`; or one address |
| name | letters, digits, `_`, `.` and `-`, at most 64, first a letter or digit |

";

const CONDITIONS: &str = "\
## Conditions

A condition is a map; all its entries must hold. A list means any of. Text compares by equality or by an anchored, case-sensitive glob: `\"build-*\"`; `*` is any run
of characters, `/` included, so that `/admin/*` is not `/admin`. Versions (by their dots), tiers, ages and hours compare with `< <= = >= >`; several must all
hold: `\">= 9 < 17\"`. On a set or header `any` means at least one value, `none` the opposite.

A comparison is *undecided* when a field is missing from an existing record, the record cannot be read, a version does not parse, or a header that the rule reads
has several values. `all`, `any` and `not` follow three-valued logic. Undecided counts as false in classes and tiers, and as true in guardrails and caps;
an undecided rule adds its outcome to the strictest-wins comparison, and evaluation goes on. Without a record every `device.*` is `none`.

";

const OWNERS_FILES: &str = "
## Owners' files

Every `*.yaml` in `policy_dir` has the keys of [owner_file](#owner_file):

```yaml
owner: finance
apps:
  - name: invoices
    hosts: [invoices.corp.example]
    upstream: {servers: [\"http://127.0.0.1:7010\"]}
    rules:
      - {name: managed, when: {tier: \">= healthy\"}, then: forward}
      - {name: rest, then: block}
rules:
  - {name: no-uploads, apps: [payroll], when: {class: personal_offnet}, then: restrict, with: [read-only]}
```

A rule of an owner's file can only make its apps stricter: it and the app's own rules are both evaluated, and the stricter outcome stands.
[delegate](#delegation) of the main file lets it loosen as well.
";
