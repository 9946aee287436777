//! Files of `src` use one another in one direction. A file uses the file that defines what it names, by whatever re-export it
//! names it; test modules do not count.

use std::collections::{BTreeMap, BTreeSet};

use super::{is_name, paths_of, sources, tokens, without_tests};

/// The rooms inside `job`, lowest first: a room uses only those before it. A file beside its folder belongs to the same
/// room.
const JOB_ROOMS: &[&str] = &[
    "report",
    "health",
    "local_state",
    "repository",
    "node",
    "error",
    "admission",
    "verify",
    "backup",
    "browse",
    "restore",
    "audit",
    "whoami",
    "exec",
    "prune",
    "operate",
    "repair",
    "keys",
];

/// Which file uses which, and what of it.
type FileGraph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A file as a module: its path below the crate, what it defines, and what it imports under which name.
struct FileModule {
    file: String,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    used: BTreeSet<Vec<String>>,
}

/// All files by the path of their module.
struct FileModules(BTreeMap<Vec<String>, FileModule>);

impl FileModules {
    fn parse(sources: &[(String, String)]) -> Self {
        let code = sources.iter().map(|(file, text)| (file, without_tests(file, text)));
        let code = code.filter(|(file, text)| !text.is_empty() && file.as_str() != "main.rs");
        let modules = code.map(|(file, text)| {
            let path = file.trim_end_matches(".rs").split('/').map(str::to_owned);
            let path = if file == "lib.rs" { Vec::new() } else { path.collect() };
            let module = FileModule {
                file: file.clone(),
                items: defined_items(text),
                imports: imports(text),
                used: aliased_paths(&tokens(text))
                    .into_iter()
                    .map(|(path, _)| path)
                    .filter(|path| path.len() > 1)
                    .collect(),
            };
            (path, module)
        });
        Self(modules.collect())
    }

    /// The file that defines what `path` names in the module `at`; `None`: it is not of this crate, or names a module.
    fn defining_file(&self, at: &[String], path: &[String], redirects: usize) -> Option<(&str, String)> {
        if redirects > 8 {
            return None;
        }
        let mut module = at.to_vec();
        let mut inside = false;
        for (position, name) in path.iter().enumerate() {
            let is_last = position + 1 == path.len();
            let here = self.0.get(&module);
            match name.as_str() {
                "crate" => module = Vec::new(),
                "super" => drop(module.pop()),
                "self" => {}
                name => {
                    let child: Vec<String> = module.iter().cloned().chain([name.to_owned()]).collect();
                    let defined = here.is_some_and(|here| here.items.contains(name));
                    if self.0.contains_key(&child) && !(defined && is_last) {
                        module = child;
                    } else if defined {
                        return Some((&here?.file, name.to_owned()));
                    } else if let Some(import) = here.and_then(|here| here.imports.get(name)) {
                        let import = import.iter().chain(&path[position + 1..]).cloned().collect::<Vec<_>>();
                        return self.defining_file(&module, &import, redirects + 1);
                    } else {
                        // What a macro defines is not seen by its name.
                        return here.filter(|_| inside).map(|here| (here.file.as_str(), name.to_owned()));
                    }
                }
            }
            inside = true;
        }
        None
    }

    fn graph(&self) -> FileGraph {
        let mut graph = FileGraph::new();
        for (path, module) in &self.0 {
            let uses = graph.entry(module.file.clone()).or_default();
            for used in &module.used {
                if let Some((file, item)) = self.defining_file(path, used, 0).filter(|(file, _)| *file != module.file) {
                    uses.entry(file.to_owned()).or_default().insert(item);
                }
            }
        }
        graph
    }
}

/// The names that are defined at the top of a file.
fn defined_items(text: &str) -> BTreeSet<String> {
    const KINDS: &[&str] = &["struct", "enum", "trait", "union", "type", "const", "static", "fn", "macro_rules"];
    const NO_NAMES: &[&str] = &["fn", "unsafe", "async", "extern", "mut"];
    let tokens = tokens(text);
    let mut depth = 0_usize;
    let mut items = BTreeSet::new();
    for (at, (_, token)) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            kind if depth == 0 && KINDS.contains(&kind) => {
                let rest =
                    tokens[at + 1..].iter().map(|(_, token)| token).find(|token| *token != "mut" && *token != "!");
                items.extend(rest.filter(|name| is_name(name) && !NO_NAMES.contains(&name.as_str())).cloned());
            }
            _ => {}
        }
    }
    items
}

/// All paths, each with its local name if `as` gives it one.
fn aliased_paths(tokens: &[(usize, String)]) -> Vec<(Vec<String>, Option<String>)> {
    let mut found = Vec::new();
    let mut named = paths_of(tokens).into_iter().map(|(_, path)| path).peekable();
    while let Some(path) = named.next() {
        let is_alias = |next: &Vec<String>| next.last().is_some_and(|name| name == "as");
        let alias = named.next_if(is_alias).and_then(|_| named.next()).and_then(|alias| alias.last().cloned());
        found.push((path, alias));
    }
    found
}

/// What a file's `use` lines bring in: the path by its local name.
fn imports(text: &str) -> BTreeMap<String, Vec<String>> {
    let tokens = tokens(text);
    let mut found = BTreeMap::new();
    for start in (0..tokens.len()).filter(|at| tokens[*at].1 == "use") {
        let tree = tokens[start + 1..].split(|(_, token)| token == ";").next().unwrap_or_default();
        for (mut path, alias) in aliased_paths(tree) {
            path.pop_if(|name| name == "self");
            if let Some(name) = alias.or_else(|| path.last().cloned()) {
                found.insert(name, path);
            }
        }
    }
    found
}

/// The sets of files that reach one another.
fn circles(graph: &FileGraph) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|file| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![file]);
            while let Some(at) = open.pop() {
                let next = graph.get(at).into_iter().flat_map(BTreeMap::keys);
                open.extend(next.filter(|next| seen.insert(*next)));
            }
            (file, seen)
        })
        .collect();
    let reaches = |from: &String, to: &String| reached.get(from).is_some_and(|seen| seen.contains(to));
    let circle = |file: &String| -> BTreeSet<String> {
        graph.keys().filter(|other| reaches(file, other) && reaches(other, file)).cloned().collect()
    };
    let circles: BTreeSet<BTreeSet<String>> = graph.keys().map(circle).filter(|circle| circle.len() > 1).collect();
    circles.into_iter().collect()
}

/// The arrows within a circle, a line each.
fn arrows_within(graph: &FileGraph, circle: &BTreeSet<String>) -> String {
    let mut lines = vec![format!("a circle of {} files:", circle.len())];
    for file in circle {
        for (used, items) in graph[file].iter().filter(|(used, _)| circle.contains(*used)) {
            let items = items.iter().map(String::as_str).collect::<Vec<_>>();
            lines.push(format!("  {file} -> {used}: {}", items.join(", ")));
        }
    }
    lines.join("\n")
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let graph = FileModules::parse(&sources()).graph();
    let wrong: Vec<String> = circles(&graph).iter().map(|circle| arrows_within(&graph, circle)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The uses of a room inside `job` by one that stands before it, or by one that is not listed.
fn upward_arrows(graph: &FileGraph) -> Vec<String> {
    let room = |file: &str| {
        let inside = file.strip_prefix("job/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        Some((JOB_ROOMS.iter().position(|room| *room == name), name.to_owned()))
    };
    let mut wrong = Vec::new();
    for (file, uses) in graph {
        let Some((from, name)) = room(file) else { continue };
        let Some(from) = from else {
            wrong.push(format!("{file}: the room `{name}` is not in the list"));
            continue;
        };
        for (used, items) in uses {
            let upward = room(used).is_some_and(|(to, _)| to.is_none_or(|to| to > from));
            if upward {
                let items = items.iter().map(String::as_str).collect::<Vec<_>>();
                wrong.push(format!("{file} -> {used}: {}", items.join(", ")));
            }
        }
    }
    wrong
}

#[test]
fn every_arrow_inside_job_points_down() {
    let wrong = upward_arrows(&FileModules::parse(&sources()).graph());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_upward_arrow_and_an_unknown_room_are_seen() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = [
        file("job.rs", "mod backup;"),
        file("job/backup.rs", "mod run;"),
        file("job/report.rs", "use crate::job::backup::run::A;\npub struct B(A);"),
        file("job/backup/run.rs", "use crate::job::report::B;\npub struct A;"),
        file("job/newcomer.rs", "use crate::job::report::B;"),
    ];
    assert_eq!(
        upward_arrows(&FileModules::parse(&sources).graph()),
        ["job/newcomer.rs: the room `newcomer` is not in the list", "job/report.rs -> job/backup/run.rs: A"]
    );
}

#[test]
fn a_circle_is_seen_through_re_exports_modules_and_parents() {
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<(String, String)> =
            files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        let graph = FileModules::parse(&sources).graph();
        circles(&graph).iter().map(|circle| arrows_within(&graph, circle)).collect::<Vec<_>>()
    };
    let both = "a circle of 2 files:\n  a.rs -> b.rs: B\n  b.rs -> a.rs: A";
    assert_eq!(
        found(&[("a.rs", "use crate::b::B;\npub struct A;"), ("b.rs", "use super::a::A;\nstruct B(A);")]),
        [both]
    );
    assert_eq!(
        found(&[("a.rs", "use crate::b::{self};\nstruct A(b::B);"), ("b.rs", "struct B(crate::a::A);")]),
        [both],
        "a path in the code is a use, also below an imported module"
    );
    assert_eq!(
        found(&[
            ("a.rs", "use crate::b::{self as c, B as D};\nstruct A(D);"),
            ("b.rs", "use crate::a::A;\nstruct B(A);")
        ]),
        [both],
        "by another name"
    );
    assert_eq!(
        found(&[
            ("a.rs", "use crate::b::B;\nstruct A;"),
            ("b.rs", "struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }")
        ]),
        [""; 0],
        "tests do not count"
    );
    let (parent, right) = (("a.rs", "mod l;\nmod r;\npub use l::L;"), ("a/r.rs", "use super::L;\npub struct R(L);"));
    assert_eq!(found(&[parent, right, ("a/l.rs", "pub struct L;")]), [""; 0], "a re-export is what it names");
    assert_eq!(
        found(&[parent, right, ("a/l.rs", "use crate::a::r::R;\npub struct L;")]),
        ["a circle of 2 files:\n  a/l.rs -> a/r.rs: R\n  a/r.rs -> a/l.rs: L"]
    );
    let child = ("a/c.rs", "use super::Error;\npub fn f() -> Error {}");
    assert_eq!(found(&[("a.rs", "mod c;\npub enum Error {}"), child]), [""; 0]);
    assert_eq!(
        found(&[("a.rs", "mod c;\npub enum Error {}\nfn g() { c::f() }"), child]),
        ["a circle of 2 files:\n  a.rs -> a/c.rs: f\n  a/c.rs -> a.rs: Error"]
    );
}
