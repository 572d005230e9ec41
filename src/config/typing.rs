//! From all files' text to the typed configuration, in named steps. Pure: the files that the configuration names are the loader's.

use std::path::{Path, PathBuf};

use super::grants::Granted;
use super::lint::{Whole, lint};
use super::names::Names;
use super::obj::Obj;
use super::report::{Diagnostic, Findings, Place, Report};
use super::serving::{NamedFile, Serving};
use super::typed::{Configuration, FingerprintHeaders};
use super::walk::nearest;
use super::yaml::{self, Node, Value};
use super::{Loaded, Texts};
use super::{apps, grants, policy_tests, rules, shapes, signatures, text, walk};
use crate::fingerprint::Known;
use crate::policy::draft::{Draft, HostPattern};

/// Values in all files together: each takes some 200 bytes of memory.
const MOST_NODES: usize = 4_000_000;

/// All that was found: what is wrong, and the configuration if nothing is.
#[derive(Debug)]
pub struct Parsed {
    files: Vec<PathBuf>,
    texts: Vec<String>,
    trees: Vec<Option<Node>>,
    pub findings: Findings,
    pub configuration: Option<Configuration>,
    /// Certificates, keys, CAs and revocation lists, to be looked at by the loader.
    pub named: Vec<NamedFile>,
    /// The apps' hosts, and where they stand.
    pub hosts: Vec<(HostPattern, Place)>,
    /// Stacks that conditions name, and where.
    stacks: Vec<(String, Place)>,
    /// Where exceptions stand.
    exceptions: Vec<Place>,
    /// Where the folder of keys for assertions is named.
    keys: Option<Place>,
}

impl Parsed {
    /// Reads the files' bytes, the main file first. Relative paths in it start at `folder`; `workers: auto` is `cpus`.
    pub fn new(files: &[(PathBuf, Vec<u8>)], folder: &Path, cpus: usize) -> Self {
        let mut out = Findings::default();
        let texts: Vec<Option<String>> = files.iter().enumerate().map(|(at, (_, bytes))| text::decode(bytes, at, &mut out)).collect();
        let mut left = MOST_NODES;
        let trees = texts.iter().enumerate().map(|(at, text)| tree(text.as_deref()?, at, &mut left, &mut out)).collect();
        let texts = texts.into_iter().map(Option::unwrap_or_default).collect();
        let mut parsed = Self {
            files: files.iter().map(|(path, _)| path.clone()).collect(),
            texts,
            trees,
            findings: out,
            configuration: None,
            named: Vec::new(),
            hosts: Vec::new(),
            stacks: Vec::new(),
            exceptions: Vec::new(),
            keys: None,
        };
        parsed.read(files, folder, cpus);
        parsed
    }

    /// The folder of owners' files as the main file names it, beside the main file as it was given.
    pub fn policy_dir(&self) -> Option<(PathBuf, Place)> {
        let node = &self.trees.first()?.as_ref()?.entry("policy_dir")?.value;
        let folder = self.files.first().and_then(|main| main.parent()).unwrap_or_else(|| Path::new(""));
        Some((folder.join(node.text()?), node.place))
    }

    /// Whether the table has the stacks that conditions name: a rule for another one never matches.
    pub fn look_up_stacks(&mut self, known: &Known) {
        let out = &mut self.findings;
        for (name, place) in self.stacks.iter().filter(|(name, _)| !known.stacks().any(|stack| stack == name)) {
            let hint = nearest(name, known.stacks()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            out.warn(*place, format!("no row of the table of known signatures names the stack `{name}`: this never matches{hint}"));
        }
    }

    fn read(&mut self, files: &[(PathBuf, Vec<u8>)], folder: &Path, cpus: usize) {
        let out = &mut self.findings;
        let Some((Some(main), owned)) = self.trees.split_first() else { return };
        let main = Obj::new(main, &shapes::ROOT);
        let owned: Vec<Obj<'_>> = owned.iter().flatten().map(|node| Obj::new(node, &shapes::OWNER_FILE)).collect();

        let names = Names::collect(main, &owned, out);
        let mut serving = Serving { main, folder, files: Vec::new() };
        let listeners = serving.listeners(out);
        let admin = serving.admin(out);
        let store = serving.store(out);
        let limits = serving.limits(out);
        let decision_log = serving.decision_log(out);
        let mut fingerprints = serving.fingerprints(out);
        let assertion = serving.assertion();
        let time_zone = grants::time_zone(main, out);
        let delegations = grants::delegations(main, &names, out);
        let granted = Granted::new(&delegations);
        let policy = Draft {
            revision: text::revision(files),
            owners: rules::owners(main, out),
            networks: rules::networks(main, &names, out),
            sources: rules::sources(main),
            fixes: rules::fixes(main, out),
            classes: rules::classes(main, &names, out),
            tiers: rules::tiers(main, &names, out),
            caps: rules::caps(main, &names, out),
            restrictions: rules::restrictions(main, out),
            guardrails: rules::guardrails(main, &names, out),
            ladders: grants::ladders(main, &time_zone, &names, out),
            delegations: delegations.into_iter().map(|(delegation, _)| delegation).collect(),
            exceptions: grants::exceptions(main, &time_zone, &names, out),
            time_zone,
            apps: Vec::new(),
            layers: Vec::new(),
        };
        let (apps, routes, hosts) = apps::apps(&names, &mut serving, out);
        // A connection's JA3 is computed before it is known which app it is for.
        fingerprints.ja3 |= routes.iter().any(|route| route.fingerprint_headers == FingerprintHeaders::Fingerproxy);
        let layers = owned.iter().flat_map(|file| apps::layers(*file, &granted, &names, out)).collect();
        let tests = std::iter::once(&main).chain(&owned).flat_map(|file| policy_tests::tests(*file, &self.files, &names, out)).collect();
        unused(&names, policy.sources.is_empty(), out);
        let policy = Draft { apps, layers, ..policy };
        if out.errors() == 0 && !out.incomplete() {
            lint(Whole { main, owned: &owned, names: &names, policy: &policy }, out);
        }
        self.exceptions = main.objects("exceptions", &shapes::EXCEPTION).map(|obj| obj.place_of("until")).collect();
        let asks =
            std::iter::once(&main).chain(&owned).flat_map(|file| file.objects("apps", &shapes::APP)).find(|app| app.flag("assertion"));
        let keys = main.object("assertion", &shapes::ASSERTION);
        self.keys = asks.map(|app| if keys.present() { keys.place_of("keys") } else { app.place_of("assertion") });
        self.named = serving.files;
        self.hosts = hosts;
        self.stacks = names.stacks.into_inner();

        let (Some(admin), Some(store)) = (admin, store) else { return };
        if out.errors() > 0 {
            return;
        }
        if out.incomplete() {
            out.error(main.place, "a part of this file was not understood, and no error says which: please report this");
            return;
        }
        self.configuration = Some(Configuration {
            files: self.files.clone(),
            policy_dir: None,
            workers: main.number("workers").and_then(|count| usize::try_from(count).ok()).unwrap_or(cpus),
            listeners,
            admin,
            limits,
            store,
            decision_log,
            fingerprints,
            assertion,
            known: signatures::builtin_alone(),
            tests,
            policy,
            routes,
        });
    }

    /// Adds what the loader found, and gives the configuration with its warnings, or everything that is wrong.
    pub fn finish(self) -> Result<Loaded, Report> {
        let Self { files, texts, trees, findings, configuration, exceptions, keys, .. } = self;
        let errors = findings.errors();
        let key = |place: Place| {
            let tree = trees.get(place.file).and_then(Option::as_ref);
            tree.zip(place.node).map(|(tree, node)| tree.path_to(node)).unwrap_or_default()
        };
        // Split once: a report has hundreds of places, a file millions of lines.
        let silent = findings.is_empty() && exceptions.is_empty() && keys.is_none();
        let lines: Vec<Vec<&str>> = texts.iter().map(|text| if silent { Vec::new() } else { text.lines().collect() }).collect();
        let line =
            |place: Place| lines.get(place.file).and_then(|lines| lines.get(place.line.saturating_sub(1))).map(|line| (*line).to_owned());
        let report = findings.report(&files, key, line);
        let configuration = match configuration {
            Some(configuration) if errors == 0 => configuration,
            _ => return Err(report),
        };
        let at = |place: Place| Diagnostic::at(&files, place, key(place), line(place));
        let (exceptions, keys) = (exceptions.into_iter().map(at).collect(), keys.map(at));
        let texts = Texts::of(files.iter().map(PathBuf::as_path).zip(texts.iter().map(String::as_str)));
        Ok(Loaded { configuration, warnings: report, exceptions, keys, texts })
    }
}

/// One file's tree, counted against what is `left` for all, walked against its shape.
fn tree(text: &str, file: usize, left: &mut usize, out: &mut Findings) -> Option<Node> {
    // One file too many is enough to say.
    if *left == 0 {
        return None;
    }
    let (node, count) = yaml::counted(text, file, out)?;
    *left = left.saturating_sub(count);
    if *left == 0 {
        out.syntax(Place::of_file(file), format!("more than {MOST_NODES} values in all files up to this one"));
        return None;
    }
    let (shape, what) = if file == 0 { (&shapes::ROOT, "the configuration") } else { (&shapes::OWNER_FILE, "an owner's file") };
    if matches!(node.value, Value::Null) {
        out.shape(Place::of_file(file), format!("found nothing, expected {what}"));
        return None;
    }
    walk::shape(&node, shape, out);
    matches!(node.value, Value::Map(_)).then_some(node)
}

fn unused(names: &Names<'_>, no_sources: bool, out: &mut Findings) {
    names.restrictions.warn_unused(out);
    names.networks.warn_unused(out);
    if let Some(place) = names.reads_posture.get().filter(|_| no_sources) {
        out.warn(place, "no source under `posture.sources`: every fact is unknown");
    }
}
