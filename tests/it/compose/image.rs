//! `deploy/Dockerfile` by itself, from the repository: what `docker build` and `docker compose up` do.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::engine::{IMAGES_MAX, Image, docker, is_there, root, run};

/// In the place of cargo, which would need a registry and minutes: sees that it is asked for the right thing, where the
/// sources are, and gives what there is.
const CARGO: &str = r#"#!/bin/sh
set -eu
[ "$*" = "build --release --locked -p antar" ]
ls Cargo.lock services/antar/src/main.rs tests/it/main.rs
mkdir -p target/release
cp /usr/local/bin/antar target/release/antar
"#;

#[test]
fn an_image_is_made_out_of_the_repository() {
    if !is_there() {
        return;
    }
    let below = Image::shared();
    // What the image of Rust has that the build stage needs: cargo, and apt-get for a compiler.
    let folder = TempDir::new().expect("a temporary directory");
    let dockerfile = format!(
        "FROM {}\nUSER root\nCOPY cargo /usr/local/bin/\n\
         RUN chmod 0755 /usr/local/bin/cargo && ln -s /bin/true /usr/local/bin/apt-get\n",
        below.0
    );
    fs::write(folder.path().join("Dockerfile"), dockerfile).expect("it can be written");
    fs::write(folder.path().join("cargo"), CARGO).expect("it can be written");
    // Each stage has a name, or it would be left.
    let [rust, stage, antar] = ["rust", "stage", "antar"].map(|what| Image(format!("{}-{what}", below.0)));
    let build = |image: &Image, args: &[&str]| {
        let mut command = Command::new("docker");
        // The builder that is pickier: it makes every stage above the one that is wanted.
        command.current_dir(root()).env("DOCKER_BUILDKIT", "0").args(["build", "--tag", &image.0]).args(args);
        run(&mut command, IMAGES_MAX).unwrap_or_else(|why| panic!("{why}"))
    };
    build(&rust, &[folder.path().to_str().expect("a plain path")]);
    let bases = [format!("RUST_IMAGE={}", rust.0), format!("RUNTIME_IMAGE={}", Image::runtime())];
    let dockerfile = ["--file", "deploy/Dockerfile", "--build-arg", &bases[0], "--build-arg", &bases[1], "."];
    build(&stage, &[&["--target", "build"], &dockerfile[..]].concat());
    build(&antar, &dockerfile);
    let said = docker(&["run", "--rm", "--network", "none", &antar.0, "--version"]);
    assert_eq!(said.as_deref(), Ok(concat!("antar ", env!("CARGO_PKG_VERSION"))));
}
