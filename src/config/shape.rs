//! The words in which the configuration's keys are described. One description drives the checker, the JSON Schema and the reference.

/// A map with known keys.
#[derive(Debug)]
pub struct Shape {
    /// For the schema and the reference.
    pub name: &'static str,
    pub doc: &'static str,
    pub keys: &'static [Key],
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub need: Need,
    pub doc: &'static str,
}

#[derive(Debug)]
pub enum Need {
    Required,
    /// The value that an absent key has, as a person would write it.
    Default(&'static str),
    /// What an absent key means.
    Absent(&'static str),
}

#[derive(Debug)]
pub enum Kind {
    /// Text with a meaning of its own, named for messages: `host`, `file`, ...
    Text(&'static str),
    /// The name of something.
    Name,
    Word(&'static [&'static str]),
    Flag,
    Count {
        min: u64,
        max: u64,
    },
    CountOr(&'static str, u64, u64),
    /// Both ends are allowed.
    Duration(&'static str, &'static str),
    /// Both ends are allowed.
    Size(&'static str, &'static str),
    Rate,
    /// Bytes a second. Both ends are allowed.
    Bandwidth(&'static str, &'static str),
    /// A day, or a moment of RFC 3339.
    Date,
    /// The name of a posture fact.
    Fact,
    /// At least one.
    Some(&'static Self),
    /// May be empty.
    List(&'static Self),
    /// One, or a list of at least one.
    OneOrMore(&'static Self),
    /// Free names to values.
    Map(&'static Self),
    Shape(&'static Shape),
    /// A list or word, or a map with the shape's keys that holds it.
    Either(&'static Self, &'static Shape),
    Condition,
    /// Signals to their values in a situation.
    Given,
    /// Which apps: a list of names, or a map with one of `SELECTORS`.
    Apps,
}

/// What a selector of apps may name instead of listing apps.
pub const SELECTORS: [(&str, &str); 2] = [("label", "every app with this label"), ("owner", "every app of this owner")];

/// The operators that combine conditions.
pub const COMBINE: [(&str, &str); 3] = [
    ("all", "a list of conditions that must all hold"),
    ("any", "a list of conditions of which one must hold"),
    ("not", "a condition that must not hold"),
];

impl Shape {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// What stands there, in words: for "expected ..." and the reference.
    pub fn words(&self) -> String {
        match self {
            Self::Text(what) => (*what).to_owned(),
            Self::Name => "name".to_owned(),
            Self::Word(words) => one_of(words),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Count { min, max } if min == max => format!("`{min}`"),
            Self::Count { min, max } => format!("whole number from {min} to {max}"),
            Self::CountOr(word, min, max) => format!("`{word}` or a whole number from {min} to {max}"),
            Self::Duration(min, max) => format!("duration from `{min}` to `{max}`"),
            Self::Size(min, max) => format!("size from `{min}` to `{max}`"),
            Self::Rate => "rate such as `60/m`".to_owned(),
            Self::Bandwidth(min, max) => format!("bandwidth from `{min}` to `{max}`"),
            Self::Date => "date such as `2026-12-31` or `2026-12-31T18:00:00Z`".to_owned(),
            Self::Fact => "name of a posture fact: letters, digits, `_` and `-`, not `age`".to_owned(),
            Self::OneOrMore(of) => format!("{}; or a list of them", of.words()),
            Self::Given => "map of signals to values".to_owned(),
            Self::Some(of) => format!("list of at least one {}", of.words()),
            Self::List(of) => format!("list, each item {}", of.expected()),
            Self::Map(of) => format!("map, each value {}", of.expected()),
            Self::Shape(shape) => shape.name.to_owned(),
            Self::Either(of, shape) => format!("{}, or a map with the keys of `{}`", of.words(), shape.name),
            Self::Condition => "condition".to_owned(),
            Self::Apps => "list of app names, or a map with `label` or `owner`".to_owned(),
        }
    }

    /// `words` after "expected".
    pub fn expected(&self) -> String {
        match self {
            Self::Shape(shape) => format!("a map with the keys of `{}`", shape.name),
            _ => article(&self.words()),
        }
    }
}

/// The words with `a` or `an` before them, unless they begin with a literal.
pub fn article(words: &str) -> String {
    match words.chars().next() {
        _ if matches!(words, "text" | "status codes") => words.to_owned(),
        None | Some('`') => words.to_owned(),
        Some('a' | 'e' | 'i' | 'o') => format!("an {words}"),
        Some(_) => format!("a {words}"),
    }
}

/// `a`, `b` or `c`.
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
