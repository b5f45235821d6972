//! The rules of the house that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file without a stated reason, in lines.
const FILE_LINES_MAX: usize = 500;
/// A file may be longer if one of its first lines says why, after these words.
const LONGER_BECAUSE: &str = "Longer than 500 lines because";

fn root() -> PathBuf {
    // This test is built as part of services/antar.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// Every text file of the repository, with its path from the root.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // `.git` is a file where the repository has several work trees.
            let skipped =
                ["target", ".git", "corpus", "artifacts", "antar-demo", "node_modules", "mutants.out"];
            if skipped.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let shown = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            if let Ok(text) = fs::read_to_string(&path) {
                found.push((shown, text));
            }
        }
    }
    found.sort();
    assert!(found.iter().any(|(name, _)| name == "Cargo.toml"), "this is not the repository");
    found
}

fn rust_files() -> Vec<(String, String)> {
    files().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

/// Fails with all that is wrong, one thing a line.
#[track_caller]
fn nothing(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_too_long_without_a_reason() {
    let long = |(name, text): (String, String)| {
        let lines = text.lines().count();
        let excused = text.lines().take(30).any(|line| line.contains(LONGER_BECAUSE));
        (lines > FILE_LINES_MAX && !excused).then(|| format!("{name} has {lines} lines"))
    };
    nothing(rust_files().into_iter().filter_map(long).collect());
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = |(name, text): (String, String)| {
        let said = text.lines().next().is_some_and(|line| line.starts_with("//!") || line.starts_with("#!"));
        (!said).then(|| format!("{name} does not begin with //!"))
    };
    nothing(rust_files().into_iter().filter_map(silent).collect());
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    // Put together here, so that this file does not hold what it looks for.
    let roots = ["home", "root", "Users", "work", "mnt"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    for (name, text) in files() {
        for (number, line) in text.lines().enumerate() {
            let found = roots.iter().any(|root| {
                line.match_indices(root.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| {
                        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')' | '/')
                    })
                })
            });
            if found {
                wrong.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    let marks = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let mut wrong = Vec::new();
    for (name, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                wrong.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn no_test_sleeps_for_a_fixed_time() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files() {
        if !name.starts_with("tests/") || name == "tests/harness/wait.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            // The quote keeps this line from finding itself.
            if line.contains("sleep(") && !line.contains("\"sleep(") {
                wrong.push(format!("{name}:{}: wait for an event: harness::eventually", number + 1));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn every_dependency_of_the_workspace_has_a_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("there are dependencies");
    let mut wrong = Vec::new();
    // A comment speaks for the lines below it, up to an empty one.
    let mut reasoned = false;
    for line in section.lines().skip(1).take_while(|line| !line.starts_with('[')) {
        match line.chars().next() {
            None => reasoned = false,
            Some('#') => reasoned = true,
            Some(_) if reasoned || line.contains("path = ") => {}
            Some(_) => wrong.push(format!("no comment above: {line}")),
        }
    }
    nothing(wrong);
}

#[test]
fn crates_know_only_those_below_them() {
    let allowed = |name: &str| -> &[&str] {
        match name {
            "proto" => &[],
            "broker" | "client" => &["proto"],
            "realm" => &["proto", "broker"],
            "edge" => &["proto", "broker", "realm"],
            "replay" => &["proto", "broker", "realm"],
            "antar" => &["proto", "broker", "realm", "edge", "client", "replay"],
            other => panic!("services/{other} is new: put it into the architecture, then here"),
        }
    };
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("services")).expect("there are services").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).expect("a manifest");
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            // A test may use more.
            if section != "[dependencies]" {
                continue;
            }
            if let Some(rest) = line.strip_prefix("antar-") {
                let other: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
                if !allowed(&name).contains(&other.as_str()) {
                    wrong.push(format!("{name} may not know {other}"));
                }
            }
            if line.contains("{ path =") || line.contains("version =") {
                wrong.push(format!("{name}: versions stand in the workspace's manifest: {line}"));
            }
        }
    }
    nothing(wrong);
}
