//! Files of one crate that import each other in a circle. Such files can only be read together, and none of them can be
//! moved or replaced alone. An import is a path in a `use`, or one that stands in the code itself; what a file only
//! re-exports belongs to the file that defines it. Tests import what they test, so they do not count.

use std::collections::{BTreeMap, BTreeSet};

/// A source file of a crate, read as far as its imports need it.
#[derive(Default)]
struct File {
    path: String,
    /// Paths that its code names, absolute within the crate, with the line of each.
    mentions: Vec<(Vec<String>, usize)>,
    /// What its `use` declarations bind: a name and the absolute path behind it. `*` for a glob.
    uses: Vec<(String, Vec<String>)>,
    defines: BTreeSet<String>,
}

type Files = BTreeMap<Vec<String>, File>;

/// Each group of files that import each other, one line each: its shortest circle, with the line of every import.
pub(crate) fn circles(sources: &[(String, String)]) -> Vec<String> {
    let files = read(sources);
    let mut imports: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for file in files.values() {
        let targets = imports.entry(&file.path).or_default();
        for (path, line) in &file.mentions {
            if let Some(target) = defining(&files, path, 0).filter(|target| *target != file.path) {
                targets.entry(target).or_insert(*line);
            }
        }
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for start in imports.keys().copied() {
        // All files that stand in a circle with this one; their shortest circle shows the import to look at.
        let reached = reached(&imports, start);
        let group: Vec<_> = reached.iter().copied().filter(|file| self::reached(&imports, file).contains(start)).collect();
        let circles = group.iter().filter_map(|file| shortest(&imports, file));
        if !seen.contains(start)
            && let Some(circle) = circles.min_by_key(Vec::len)
        {
            let steps = circle.iter().zip(circle.iter().cycle().skip(1));
            let steps: Vec<_> = steps.map(|(from, to)| format!("{from}:{} imports {to}", imports[from][to])).collect();
            found.push(format!("{}; {} files in all", steps.join(", "), group.len()));
        }
        seen.extend(group);
    }
    found
}

/// The files that one leads to, over any number of imports.
fn reached<'a>(imports: &BTreeMap<&'a str, BTreeMap<&'a str, usize>>, start: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = imports[start].keys().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(imports[file].keys().copied());
        }
    }
    reached
}

/// The shortest way from a file back to itself.
fn shortest<'a>(imports: &BTreeMap<&'a str, BTreeMap<&'a str, usize>>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut reached = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in imports[way[way.len() - 1]].keys().copied() {
                if next == start {
                    return Some(way);
                }
                if reached.insert(next) {
                    longer.push([&way[..], &[next]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The file that defines what a path names: a module's own file, or where re-exports lead.
fn defining<'a>(files: &'a Files, path: &[String], depth: usize) -> Option<&'a str> {
    let modules = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length]))?;
    let file = &files[&path[..modules]];
    let Some(name) = path.get(modules) else { return Some(&file.path) };
    // A re-export of a re-export ends somewhere; two globs that include each other might not.
    if depth < 8 && !file.defines.contains(name) {
        for (bound, target) in &file.uses {
            let behind = match bound {
                bound if bound == name => target.clone(),
                bound if bound == "*" => [&target[..], std::slice::from_ref(name)].concat(),
                _ => continue,
            };
            match defining(files, &behind, depth + 1) {
                Some(found) if bound == name => return Some(found),
                Some(found) if files.values().any(|file| file.path == found && file.defines.contains(name)) => return Some(found),
                _ => {}
            }
        }
    }
    Some(&file.path)
}

fn read(sources: &[(String, String)]) -> Files {
    let modules: BTreeMap<Vec<String>, &(String, String)> =
        sources.iter().filter_map(|source| Some((module(&source.0)?, source))).collect();
    let names: BTreeSet<&Vec<String>> = modules.keys().collect();
    let read = |(at, (path, text)): (&Vec<String>, &&(String, String))| (at.clone(), read_file(at, path, text, &names));
    modules.iter().map(read).collect()
}

/// The module that a file is: `a::b` for `src/a/b.rs` and for `src/a/b/mod.rs`. `None` for tests.
fn module(path: &str) -> Option<Vec<String>> {
    let inside = path.split_once("/src/")?.1.strip_suffix(".rs")?;
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.iter().any(|part| part == "tests") {
        return None;
    }
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    Some(parts)
}

fn read_file(at: &[String], path: &str, text: &str, modules: &BTreeSet<&Vec<String>>) -> File {
    let tokens = without_tests(tokens(text));
    let mut file = File { path: path.to_owned(), ..File::default() };
    let mut position = 0;
    while position < tokens.len() {
        let (token, line) = &tokens[position];
        match token.as_str() {
            "use" => {
                let end = position + tokens[position..].iter().position(|(token, _)| token == ";").unwrap_or(1);
                let mut found = Vec::new();
                tree(&tokens[position + 1..end], &[], &mut found);
                for (name, written, line) in found {
                    if let Some(absolute) = absolute(at, &written, modules, &[]) {
                        file.mentions.push((absolute.clone(), line));
                        file.uses.push((name, absolute));
                    }
                }
                position = end;
            }
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                file.defines.extend(tokens.get(position + 1).map(|(name, _)| name.clone()));
                position += 1;
            }
            name if is_name(name) => {
                let mut written = vec![name.to_owned()];
                while tokens.get(position + 1).is_some_and(|(next, _)| next == "::")
                    && tokens.get(position + 2).is_some_and(|(next, _)| is_name(next))
                {
                    written.push(tokens[position + 2].0.clone());
                    position += 2;
                }
                if written.len() > 1
                    && let Some(absolute) = absolute(at, &written, modules, &file.uses)
                {
                    file.mentions.push((absolute, *line));
                }
                position += 1;
            }
            _ => position += 1,
        }
    }
    file
}

/// A path as the crate sees it. `None` if it begins in another crate, or with a name of the file's own.
fn absolute(at: &[String], written: &[String], modules: &BTreeSet<&Vec<String>>, uses: &[(String, Vec<String>)]) -> Option<Vec<String>> {
    let mut base = at.to_vec();
    let mut rest = written;
    match written.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        first => {
            base.push(first.to_owned());
            if !modules.contains(&base) {
                let (_, target) = uses.iter().find(|(name, target)| name == first && modules.contains(target))?;
                base.clone_from(target);
            }
            rest = &rest[1..];
        }
    }
    base.extend(rest.iter().filter(|part| *part != "*" && *part != "self").cloned());
    Some(base)
}

/// The leaves of a `use` tree: the name that each binds, its path, and its line.
fn tree(tokens: &[(String, usize)], prefix: &[String], found: &mut Vec<(String, Vec<String>, usize)>) {
    let mut depth = 0;
    let mut start = 0;
    for position in 0..=tokens.len() {
        match tokens.get(position).map(|(token, _)| token.as_str()) {
            Some("{") => depth += 1,
            Some("}") => depth -= 1,
            Some(",") | None if depth == 0 && start < position => {
                branch(&tokens[start..position], prefix, found);
                start = position + 1;
            }
            _ => {}
        }
    }
}

fn branch(tokens: &[(String, usize)], prefix: &[String], found: &mut Vec<(String, Vec<String>, usize)>) {
    let mut path = prefix.to_vec();
    let mut bound = None;
    let mut position = 0;
    while let Some((token, line)) = tokens.get(position) {
        match token.as_str() {
            "::" => {}
            "{" => return tree(&tokens[position + 1..tokens.len() - 1], &path, found),
            "as" => {
                bound = tokens.get(position + 1).map(|(name, _)| name.clone());
                position += 1;
            }
            part => {
                path.push(part.to_owned());
                bound = Some(if part == "self" { prefix.last().cloned().unwrap_or_default() } else { part.to_owned() });
            }
        }
        position += 1;
        if position == tokens.len() {
            found.push((bound.clone().unwrap_or_default(), path.clone(), *line));
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and single characters, each with its line; no comments, no texts.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    let characters: Vec<char> = text.chars().collect();
    let (mut position, mut line) = (0, 1);
    let starts = |position: usize, word: &str| word.chars().enumerate().all(|(at, c)| characters.get(position + at) == Some(&c));
    while let Some(c) = characters.get(position).copied() {
        let from = position;
        if starts(position, "//") {
            while characters.get(position).is_some_and(|c| *c != '\n') {
                position += 1;
            }
        } else if c == 'r' && (starts(position, "r\"") || starts(position, "r#\"") || starts(position, "r##\"")) {
            let hashes = characters[position + 1..].iter().take_while(|c| **c == '#').count();
            let end = format!("\"{}", "#".repeat(hashes));
            position += 2 + hashes;
            while position < characters.len() && !starts(position, &end) {
                position += 1;
            }
            position += end.len();
        } else if c == '"' {
            position += 1;
            while characters.get(position).is_some_and(|c| *c != '"') {
                position += if characters[position] == '\\' { 2 } else { 1 };
            }
            position += 1;
        } else if c == '\'' && characters.get(position + 1) == Some(&'\\') {
            position += 3;
            while characters.get(position).is_some_and(|c| *c != '\'') {
                position += 1;
            }
            position += 1;
        } else if c == '\'' && characters.get(position + 2) == Some(&'\'') {
            position += 3;
        } else if c.is_alphabetic() || c == '_' {
            while characters.get(position).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                position += 1;
            }
            found.push((characters[from..position].iter().collect(), line));
        } else if starts(position, "::") {
            position += 2;
            found.push(("::".to_owned(), line));
        } else {
            position += 1;
            if !c.is_whitespace() {
                found.push((c.to_string(), line));
            }
        }
        line += characters[from..position.min(characters.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// Without what is compiled for tests alone: `#[cfg(test)]`, and the item behind it.
fn without_tests(tokens: Vec<(String, usize)>) -> Vec<(String, usize)> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut position = 0;
    while position < tokens.len() {
        if !MARK.iter().enumerate().all(|(at, word)| tokens.get(position + at).is_some_and(|(token, _)| token == word)) {
            kept.push(tokens[position].clone());
            position += 1;
            continue;
        }
        let (mut depth, mut is_use) = (0, false);
        position += MARK.len();
        while let Some((token, _)) = tokens.get(position) {
            position += 1;
            match token.as_str() {
                "use" => is_use = true,
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && (token == ";" || token == "}" && !is_use) {
                break;
            }
        }
    }
    kept
}
