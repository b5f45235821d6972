//! The container engine of this machine: its commands, and images of Antar.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::harness::{eventually_in, nats_server, skip};

/// How long images may take, when a Debian root has to be made first.
pub(super) const IMAGES_MAX: Duration = Duration::from_secs(300);
/// How long the engine may take for anything else.
pub(super) const ENGINE_MAX: Duration = Duration::from_secs(90);
/// The image that tests share which run at the same time.
static IMAGE: Mutex<Weak<Image>> = Mutex::new(Weak::new());

/// The repository.
pub(super) fn root() -> PathBuf {
    // This test is built as part of services/antar.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// Runs a command to its end: what it wrote, or what it complained about.
pub(super) fn run(command: &mut Command, patience: Duration) -> Result<String, String> {
    let shown = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| format!("{shown}: {error}"))?;
    let reader = std::thread::spawn(move || child.wait_with_output());
    eventually_in(patience, &shown, || reader.is_finished().then_some(()));
    let output = reader.join().expect("the reader does not panic").map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{shown}: {}\n{}", text(&output.stdout), text(&output.stderr))),
    }
}

/// Runs a command of the engine to its end.
pub(super) fn docker(args: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(args), ENGINE_MAX)
}

/// Whether there is an engine. Where there is none, it says so; but under CI there must be one.
#[track_caller]
pub(super) fn is_there() -> bool {
    let version = docker(&["version", "--format", "{{.Server.Version}}"]);
    version.map_err(|why| skip(&format!("no containers: {why}"))).is_ok()
}

/// The words that run compose here: the plugin, or the program of its own. `None` as if there were no engine.
#[track_caller]
pub(super) fn compose_command() -> Option<Vec<&'static str>> {
    if !is_there() {
        return None;
    }
    let known = [vec!["docker", "compose"], vec!["docker-compose"]];
    let works = |words: &Vec<&str>| {
        run(Command::new(words[0]).args(&words[1..]).arg("version"), ENGINE_MAX).map(drop).is_ok()
    };
    let found = known.into_iter().find(works);
    if found.is_none() {
        skip("there is an engine, but neither form of compose");
    }
    found
}

/// An image of Antar, removed when nobody needs it any more.
pub(super) struct Image(pub(super) String);

impl Image {
    /// The image, and what is missing below it.
    #[track_caller]
    pub(super) fn shared() -> Arc<Self> {
        // Another test that has failed at this is no reason not to try.
        let mut kept = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
        kept.upgrade().unwrap_or_else(|| {
            let image = Arc::new(Self::build().unwrap_or_else(|why| panic!("{why}")));
            *kept = Arc::downgrade(&image);
            image
        })
    }

    /// The Debian below it: of this machine's release, so that its binaries run there.
    pub(super) fn runtime() -> String {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        format!("debian:{}-slim", name.unwrap_or("bookworm"))
    }

    fn build() -> Result<Self, String> {
        let script = |args: &[&str]| {
            let mut command = Command::new(root().join("deploy/images.sh"));
            // A server that is found by its name only is found by the script too.
            let named = Some(nats_server()).filter(|path| path.is_absolute());
            command.args(args).envs(named.map(|path| ("NATS_SERVER", path)));
            command.env("RUNTIME_IMAGE", Self::runtime());
            run(&mut command, IMAGES_MAX)
        };
        let image = Self(format!("antar-it:{}", std::process::id()));
        script(&["stand-ins"])?;
        script(&["antar", env!("CARGO_BIN_EXE_antar"), &image.0])?;
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(why) = docker(&["image", "rm", "--force", &self.0]) {
            eprintln!("an image is left: {why}");
        }
    }
}
