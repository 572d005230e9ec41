//! What the configuration names, and looking it up.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use super::obj::Obj;
use super::report::{Findings, Place};
use super::shapes;
use super::walk::nearest;
use super::yaml::{Node, short};
use crate::policy::draft::Glob;

/// Names of one kind of thing, in the order in which they stand.
#[derive(Debug)]
pub struct Table {
    /// For messages: "no {what} named".
    what: &'static str,
    entries: Vec<Named>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Named {
    name: String,
    place: Place,
    used: Cell<bool>,
}

impl Table {
    pub fn new(what: &'static str) -> Self {
        Self { what, entries: Vec::new(), by_name: HashMap::new() }
    }

    /// A second thing of the same name is an error, and keeps its number: numbers are those of the list in the file.
    pub fn define(&mut self, name: &str, place: Place, out: &mut Findings) {
        let number = self.entries.len();
        self.entries.push(Named { name: name.to_owned(), place, used: Cell::new(false) });
        if name.is_empty() {
            // A nameless thing is an error already.
            return;
        }
        match self.by_name.get(name).and_then(|first| self.entries.get(*first)) {
            Some(first) => out.clash(place, format!("a second {} named `{}`", self.what, short(name)), (first.place, "first")),
            None => {
                self.by_name.insert(name.to_owned(), number);
            }
        }
    }

    /// Looks up without a word about it.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// It has a use of its own, named by no condition.
    pub fn has_use(&self, name: &str) {
        if let Some(entry) = self.index(name).and_then(|at| self.entries.get(at)) {
            entry.used.set(true);
        }
    }

    /// All whose name the glob matches: they count as used.
    pub fn matching<'a>(&'a self, glob: &'a Glob) -> impl Iterator<Item = usize> + 'a {
        let of_name = |entry: &Named| self.by_name.get(&entry.name).copied();
        let matching = self.entries.iter().filter(|entry| glob.matches(&entry.name));
        matching.inspect(|entry| entry.used.set(true)).filter_map(of_name)
    }

    /// Looks up the name that a node holds; an unknown one is an error.
    pub fn find(&self, node: &Node, out: &mut Findings) -> Option<usize> {
        let Some(name) = node.text() else { return out.left_out() };
        self.named(name, node.place, &[], out)
    }

    /// The name that a node holds, where there is such a thing; to ask is no use of it. `also` are names that are always there.
    pub fn exists<'n>(&self, node: &'n Node, also: &[&str], out: &mut Findings) -> Option<&'n str> {
        let Some(name) = node.text() else { return out.left_out() };
        if !also.contains(&name) && self.index(name).is_none() {
            self.unknown(name, node.place, also, out);
        }
        Some(name)
    }

    /// `also` are names that are always there, for the message.
    pub fn named(&self, name: &str, place: Place, also: &[&str], out: &mut Findings) -> Option<usize> {
        let found = self.index(name);
        match found.and_then(|at| self.entries.get(at)) {
            Some(entry) => entry.used.set(true),
            None => self.unknown(name, place, also, out),
        }
        found
    }

    fn unknown(&self, name: &str, place: Place, also: &[&str], out: &mut Findings) {
        let hint = if out.full() { String::new() } else { self.hint(name, also) };
        out.error(place, format!("no {} named `{}`{hint}", self.what, short(name)));
    }

    fn hint(&self, name: &str, also: &[&str]) -> String {
        // With thousands of names a look through all for each mistake would take too long.
        let known = self.entries.iter().take(2000).map(|entry| entry.name.as_str()).chain(also.iter().copied());
        if let Some(near) = nearest(name, known.clone()) {
            return format!("; did you mean `{near}`?");
        }
        let few: Vec<&str> = known.take(8).collect();
        if few.is_empty() { "; none is defined".to_owned() } else { format!("; known: {}", few.join(", ")) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn name(&self, at: usize) -> &str {
        self.entries.get(at).map(|entry| entry.name.as_str()).unwrap_or_default()
    }

    pub fn place(&self, at: usize) -> Option<Place> {
        self.entries.get(at).map(|entry| entry.place)
    }

    pub fn is_used(&self, name: &str) -> bool {
        self.index(name).and_then(|at| self.entries.get(at)).is_some_and(|entry| entry.used.get())
    }

    pub fn warn_unused(&self, out: &mut Findings) {
        self.warn_unused_but(|_| false, out);
    }

    /// But those that have a use of their own.
    pub fn warn_unused_but(&self, has_use: impl Fn(&str) -> bool, out: &mut Findings) {
        let unused = self.entries.iter().filter(|entry| !entry.used.get() && !entry.name.is_empty());
        for entry in unused.filter(|entry| !has_use(&entry.name)) {
            out.warn(entry.place, format!("the {} `{}` is used nowhere", self.what, short(&entry.name)));
        }
    }

    pub fn limit(&self, most: usize, out: &mut Findings) {
        if let Some(entry) = self.entries.get(most) {
            out.error(entry.place, format!("found {} of them, expected at most {most}: a {} too many", self.entries.len(), self.what));
        }
    }
}

const MOST_APPS: usize = 10_000;

/// An app as selectors and owners' files see it.
#[derive(Debug)]
pub struct AppName<'a> {
    pub obj: Obj<'a>,
    /// Index into the owners.
    pub owner: Option<usize>,
    pub owner_place: Place,
    pub labels: Vec<&'a str>,
}

/// All names, collected before any of them is looked up.
#[derive(Debug)]
pub struct Names<'a> {
    pub owners: Table,
    pub networks: Table,
    pub classes: Table,
    pub tiers: Table,
    pub restrictions: Table,
    pub apps: Table,
    /// As in `apps`.
    pub app_names: Vec<AppName<'a>>,
    /// Apps by their owner, ascending.
    by_owner: HashMap<usize, Vec<usize>>,
    /// Apps by their labels, ascending.
    by_label: HashMap<&'a str, Vec<usize>>,
    /// A condition reads a posture fact.
    pub reads_posture: Cell<Option<Place>>,
    /// Facts that conditions and ladders read.
    pub facts: RefCell<HashSet<String>>,
    /// Facts that exceptions let count as ok, and where.
    pub lifted: RefCell<Vec<(String, Place)>>,
    /// Stacks that conditions name: which there are is the table's to say.
    pub stacks: RefCell<Vec<(String, Place)>>,
}

impl<'a> Names<'a> {
    /// Of the main file, and of owners' files with the owner that each belongs to.
    pub fn collect(main: Obj<'a>, owned: &[Obj<'a>], out: &mut Findings) -> Self {
        let mut names = Self {
            owners: map(main, "owners", Table::new("owner"), out),
            networks: map(main, "networks", Table::new("network"), out),
            classes: list(main, "classes", Table::new("class"), out),
            tiers: list(main, "tiers", Table::new("tier"), out),
            restrictions: map(main, "restrictions", Table::new("restriction"), out),
            apps: Table::new("app"),
            app_names: Vec::new(),
            by_owner: HashMap::new(),
            by_label: HashMap::new(),
            reads_posture: Cell::new(None),
            facts: RefCell::default(),
            lifted: RefCell::default(),
            stacks: RefCell::default(),
        };
        names.restrictions.limit(64, out);
        names.tiers.limit(64, out);
        names.classes.limit(1000, out);
        names.networks.limit(10_000, out);
        names.owners.limit(10_000, out);
        for obj in main.objects("apps", &shapes::APP) {
            names.app(obj, None, out);
        }
        for file in owned {
            let owner = file.get("owner");
            for obj in file.objects("apps", &shapes::OWNED_APP) {
                names.app(obj, owner, out);
            }
        }
        names.apps.limit(MOST_APPS, out);
        names
    }

    pub fn read_fact(&self, name: &str, place: Place) {
        self.reads_posture.set(self.reads_posture.get().or(Some(place)));
        if !self.facts.borrow().contains(name) {
            self.facts.borrow_mut().insert(name.to_owned());
        }
    }

    /// The apps of an owner, in the order of their numbers.
    pub fn owned_by(&self, owner: usize) -> &[usize] {
        self.by_owner.get(&owner).map(Vec::as_slice).unwrap_or_default()
    }

    /// The apps with a label, in the order of their numbers.
    pub fn labelled(&self, label: &str) -> &[usize] {
        self.by_label.get(label).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every app has an entry, a broken one too: the numbers of apps are those of the files.
    fn app(&mut self, obj: Obj<'a>, file_owner: Option<&'a Node>, out: &mut Findings) {
        // One too many is an error; millions would cost memory beside.
        if self.apps.len() > MOST_APPS {
            return;
        }
        self.apps.define(obj.text("name").unwrap_or_default(), obj.place_of("name"), out);
        let own = obj.get("owner");
        if let (Some(own), Some(file)) = (own, file_owner)
            && own.text().is_some()
            && own.text() != file.text()
        {
            out.clash(
                own.place,
                format!("found the owner {}, expected {}: an owner's file holds its own apps only", own.found(), file.found()),
                (file.place, "the file's owner"),
            );
        }
        let node = file_owner.or(own);
        // Only the main file's owners are looked up here: that of an owner's file is looked up once, with the file.
        let owner = match (file_owner, own) {
            (None, Some(own)) => self.owners.find(own, out),
            (Some(file), _) => file.text().and_then(|name| self.owners.index(name)),
            (None, None) => None,
        };
        let labels: Vec<&str> = obj.items("labels").iter().filter_map(Node::text).collect();
        let number = self.app_names.len();
        if let Some(owner) = owner {
            self.by_owner.entry(owner).or_default().push(number);
        }
        for label in &labels {
            let labelled = self.by_label.entry(label).or_default();
            if labelled.last() != Some(&number) {
                labelled.push(number);
            }
        }
        self.app_names.push(AppName { obj, owner, owner_place: node.map_or(obj.place, |node| node.place), labels });
    }
}

fn list(main: Obj<'_>, key: &str, mut table: Table, out: &mut Findings) -> Table {
    for node in main.items(key) {
        // A nameless one keeps its number.
        match node.entry("name").map(|entry| &entry.value) {
            Some(name) => table.define(name.text().unwrap_or_default(), name.place, out),
            None => table.define("", node.place, out),
        }
    }
    table
}

fn map(main: Obj<'_>, key: &str, mut table: Table, out: &mut Findings) -> Table {
    for entry in main.entries(key) {
        // Twice the same key is YAML's own error.
        if table.index(&entry.key).is_none() {
            table.define(&entry.key, entry.key_place, out);
        }
    }
    table
}
