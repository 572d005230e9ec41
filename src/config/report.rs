//! What is wrong with a configuration, and where: collected while reading, rendered for a terminal.

use std::fmt;
use std::path::{Path, PathBuf};

use annotate_snippets::{Annotation, AnnotationKind, Level as Style, Renderer, Snippet};

/// More findings than this are counted, not kept: a hostile file must not make a report of many gigabytes.
const MOST: usize = 500;
/// Longer source lines are not shown.
const LONGEST_LINE: usize = 400;

/// A place in one of the files, and the node of its tree that the key's path is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into the files that were given.
    pub file: usize,
    /// Pre-order number of the node in its file's tree; `None` where there is no tree.
    pub node: Option<u32>,
    /// From 1, both; the column counts characters.
    pub line: usize,
    pub column: usize,
    /// Characters.
    pub width: usize,
}

impl Place {
    pub const fn of_file(file: usize) -> Self {
        Self { file, node: None, line: 1, column: 1, width: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
}

/// Who can see the mistake: the JSON Schema rejects what `Shape` rejects, and nothing that only `Meaning` rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The file is no YAML that we read.
    Syntax,
    Shape,
    Meaning,
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub level: Level,
    pub stage: Stage,
    pub place: Place,
    pub message: String,
    /// Another place that belongs to the story, and what is there.
    pub other: Option<(Place, String)>,
    /// The line holds a secret: it is not shown.
    pub secret: bool,
}

/// Findings while reading. Order is order of discovery; the report sorts.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    dropped: usize,
    errors: usize,
    /// A part of the configuration could not be made. Then there must be an error; were there none, the loader would drop it silently.
    incomplete: bool,
}

impl Findings {
    pub fn syntax(&mut self, place: Place, message: impl Into<String>) {
        self.push(Level::Error, Stage::Syntax, place, message.into());
    }

    pub fn shape(&mut self, place: Place, message: impl Into<String>) {
        self.push(Level::Error, Stage::Shape, place, message.into());
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>) {
        self.push(Level::Error, Stage::Meaning, place, message.into());
    }

    pub fn warn(&mut self, place: Place, message: impl Into<String>) {
        self.push(Level::Warning, Stage::Meaning, place, message.into());
    }

    /// A warning, with a second place where there is one.
    pub fn caution(&mut self, place: Place, message: impl Into<String>, other: Option<(Place, &str)>) {
        self.push(Level::Warning, Stage::Meaning, place, message.into());
        if let Some(last) = self.kept.last_mut().filter(|last| last.place == place) {
            last.other = other.map(|(place, what)| (place, what.to_owned()));
        }
    }

    /// An error with a second place, `what` saying what stands there.
    pub fn clash(&mut self, place: Place, message: impl Into<String>, (other, what): (Place, &str)) {
        self.push(Level::Error, Stage::Meaning, place, message.into());
        if let Some(last) = self.kept.last_mut().filter(|last| last.place == place) {
            last.other = Some((other, what.to_owned()));
        }
    }

    /// A second definition of a key. A syntax error in YAML's own terms: no schema ever sees such a file.
    pub fn duplicate(&mut self, place: Place, message: impl Into<String>, first: Place) {
        self.push(Level::Error, Stage::Syntax, place, message.into());
        if let Some(last) = self.kept.last_mut().filter(|last| last.place == place) {
            last.other = Some((first, "first".to_owned()));
        }
    }

    /// An error on a line that must not be repeated in logs.
    pub fn secret(&mut self, place: Place, message: impl Into<String>) {
        self.push(Level::Error, Stage::Meaning, place, message.into());
        if let Some(last) = self.kept.last_mut().filter(|last| last.place == place) {
            last.secret = true;
        }
    }

    /// Says that something was left out because of an error that is, or will be, reported elsewhere.
    pub fn left_out<T>(&mut self) -> Option<T> {
        self.incomplete = true;
        None
    }

    /// No further finding will be kept: costly searches for a better message may be skipped.
    pub fn full(&self) -> bool {
        self.kept.len() >= MOST
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.errors
    }

    pub fn incomplete(&self) -> bool {
        self.incomplete
    }

    fn push(&mut self, level: Level, stage: Stage, place: Place, message: String) {
        if level == Level::Error {
            self.errors += 1;
        }
        if self.full() {
            self.dropped += 1;
            return;
        }
        self.kept.push(Finding { level, stage, place, message, other: None, secret: false });
    }

    /// `key` names the key's path of a place; `line` is the text of one line of a file.
    pub fn report(self, files: &[PathBuf], key: impl Fn(Place) -> String, line: impl Fn(Place) -> Option<String>) -> Report {
        let name = |place: Place| files.get(place.file).cloned().unwrap_or_default();
        let mut items: Vec<Diagnostic> = self
            .kept
            .into_iter()
            .map(|finding| Diagnostic {
                level: finding.level,
                stage: finding.stage,
                key: key(finding.place),
                message: finding.message,
                spot: Spot::new(name(finding.place), finding.place, (!finding.secret).then(|| line(finding.place)).flatten()),
                other: finding.other.map(|(place, what)| (Spot::new(name(place), place, line(place)), what)),
            })
            .collect();
        items.sort_by(|a, b| {
            let file = |d: &Diagnostic| files.iter().position(|f| *f == d.spot.file);
            (file(a), a.spot.line, a.spot.column).cmp(&(file(b), b.spot.line, b.spot.column))
        });
        Report { items, dropped: self.dropped }
    }
}

/// Errors and warnings of a configuration in the order of its files and lines. Complete in itself: it holds the lines that it shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    items: Vec<Diagnostic>,
    dropped: usize,
}

#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub level: Level,
    pub stage: Stage,
    /// The key's path, `apps[0].rules[2].with[1]`; empty for a whole file.
    pub key: String,
    pub message: String,
    spot: Spot,
    other: Option<(Spot, String)>,
}

#[derive(Clone, Debug)]
struct Spot {
    file: PathBuf,
    line: usize,
    column: usize,
    width: usize,
    text: Option<String>,
}

impl Spot {
    fn new(file: PathBuf, place: Place, text: Option<String>) -> Self {
        let text = text.filter(|text| text.len() <= LONGEST_LINE && !text.trim().is_empty());
        Self { file, line: place.line, column: place.column, width: place.width, text }
    }

    fn address(&self) -> String {
        format!("{}:{}:{}", self.file.display(), self.line, self.column)
    }

    /// The line as it is shown. Tabs and control characters stand as spaces so that a mark is under its text.
    fn shown(&self) -> Option<String> {
        Some(self.text.as_ref()?.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    fn snippet(&self, text: String) -> Snippet<'static, Annotation<'static>> {
        Snippet::source(text).line_start(self.line)
    }

    /// The mark under the place in its line.
    fn mark(&self, text: &str, kind: AnnotationKind) -> Annotation<'static> {
        let byte = |column: usize| text.char_indices().nth(column).map_or(text.len(), |(at, _)| at);
        let start = byte(self.column.saturating_sub(1));
        let end = byte(self.column.saturating_sub(1).saturating_add(self.width.max(1))).max(start);
        kind.span(start..end)
    }
}

impl Diagnostic {
    /// A place, with nothing said of it.
    pub(super) fn at(files: &[PathBuf], place: Place, key: String, line: Option<String>) -> Self {
        let spot = Spot::new(files.get(place.file).cloned().unwrap_or_default(), place, line);
        Self { level: Level::Warning, stage: Stage::Meaning, key, message: String::new(), spot, other: None }
    }

    /// The same place, with something to say of it.
    pub fn saying(&self, message: String) -> Self {
        Self { message, ..self.clone() }
    }

    /// The same place, with something wrong there.
    pub fn blaming(&self, message: String) -> Self {
        Self { level: Level::Error, ..self.saying(message) }
    }

    /// The other place that belongs to it, as `position`, and what stands there.
    pub fn other(&self) -> Option<((&Path, usize, usize), &str)> {
        self.other.as_ref().map(|(spot, what)| ((spot.file.as_path(), spot.line, spot.column), what.as_str()))
    }

    /// The file as it was named to the loader, the line and the column, both from 1.
    pub fn position(&self) -> (&Path, usize, usize) {
        (&self.spot.file, self.spot.line, self.spot.column)
    }

    /// One line: `FILE:LINE:COLUMN: error: KEY: MESSAGE`.
    pub fn line(&self) -> String {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let other = self.other.as_ref().map(|(spot, what)| format!(" ({what}: {})", spot.address())).unwrap_or_default();
        format!("{}: {level}: {key}{}{other}", self.spot.address(), self.message)
    }

    /// That line, with the source's own line and the place marked in it.
    pub fn render(&self) -> String {
        let style = match self.level {
            Level::Error => Style::ERROR,
            Level::Warning => Style::WARNING,
        };
        let Some(text) = self.spot.shown() else {
            return self.line();
        };
        let mark = self.spot.mark(&text, AnnotationKind::Primary);
        let mut snippet = self.spot.snippet(text.clone()).annotation(mark);
        let other = self.other.as_ref().and_then(|(spot, what)| Some((spot, what.clone(), spot.shown()?)));
        let mut below = None;
        if let Some((spot, what, line)) = other {
            let mark = spot.mark(&line, AnnotationKind::Context).label(what);
            if (&spot.file, spot.line) == (&self.spot.file, self.spot.line) {
                snippet = snippet.annotation(mark);
            } else {
                below = Some(spot.snippet(line).path(spot.file.display().to_string()).annotation(mark));
            }
        }
        let mut group = style.no_name().primary_title(self.line()).element(snippet);
        if let Some(below) = below {
            group = group.element(below);
        }
        Renderer::plain().render(&[group])
    }
}

impl Report {
    /// A report of one error about a whole file.
    pub(super) fn of_file(file: &Path, message: String) -> Self {
        let mut findings = Findings::default();
        findings.syntax(Place::of_file(0), message);
        findings.report(&[file.to_owned()], |_| String::new(), |_| None)
    }

    /// Followed by the report of another file.
    pub(super) fn and(mut self, mut other: Self) -> Self {
        self.items.append(&mut other.items);
        self.dropped += other.dropped;
        self
    }

    /// Followed by what was found by other means.
    pub fn with(mut self, more: impl IntoIterator<Item = Diagnostic>) -> Self {
        self.items.extend(more);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.items
    }

    pub fn count(&self, level: Level) -> usize {
        self.items.iter().filter(|d| d.level == level).count()
    }

    /// Beyond those that are kept.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// One line for each, for logs and tests.
    pub fn lines(&self) -> String {
        self.items.iter().map(|d| d.line() + "\n").collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{}\n", item.render())?;
        }
        if self.dropped > 0 {
            writeln!(f, "and {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
