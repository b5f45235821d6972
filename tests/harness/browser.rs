//! A real Chromium, driven over WebDriver as a person would use it: by keys, and by looking at what is shown.
//!
//! Owns: starting and ending browsers, and waiting for what they show. Must not know: what the page is for.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{PATIENCE, eventually, skip};

/// Browsers take much of a small machine: one test at a time has some.
static ALONE: Mutex<()> = Mutex::new(());

/// What starts browsers.
pub(crate) struct Driver {
    child: Child,
    url: String,
    _alone: MutexGuard<'static, ()>,
}

impl Driver {
    /// Starts it; or says why it cannot be, where no browser is installed.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        for program in ["chromium", "chromedriver"] {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            if !found.is_ok_and(|found| found.status.success()) {
                skip(&format!("there is no {program}; Debian has it as chromium and chromium-driver"));
                return None;
            }
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is there");
        let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.rsplit_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("it says where it listens");
        // Reads to the end, so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Some(Self { child, url: format!("http://127.0.0.1:{port}"), _alone: alone })
    }

    /// A window as large as that of a small laptop.
    #[track_caller]
    pub(crate) fn browser(&self) -> Browser {
        self.open(&["--window-size=1200,860"], Value::Null)
    }

    /// The same for somebody who wants it dark.
    #[track_caller]
    pub(crate) fn dark_browser(&self) -> Browser {
        self.open(&["--window-size=1200,860", "--force-dark-mode"], Value::Null)
    }

    /// One as narrow as a phone.
    #[track_caller]
    pub(crate) fn phone(&self) -> Browser {
        let screen =
            json!({ "deviceMetrics": { "width": 390, "height": 780, "pixelRatio": 1.5, "touch": true } });
        self.open(&[], screen)
    }

    #[track_caller]
    fn open(&self, args: &[&str], phone: Value) -> Browser {
        let profile = TempDir::new().expect("a temporary directory");
        let own = format!("--user-data-dir={}", profile.path().display());
        let fixed = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--lang=en-US", &own];
        let mut options = json!({ "args": fixed.iter().chain(args).collect::<Vec<_>>() });
        if !phone.is_null() {
            options["mobileEmulation"] = phone;
        }
        let mut wanted = Capabilities::new();
        wanted.insert("browserName".into(), "chrome".into());
        wanted.insert("goog:chromeOptions".into(), options);
        wanted.insert("goog:loggingPrefs".into(), json!({ "browser": "ALL" }));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            ClientBuilder::new(HttpConnector::new()).capabilities(wanted).connect(&self.url).await
        });
        Browser { client: client.expect("the browser starts"), runtime, _profile: profile }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One browser with one window, and nothing that another has left in it.
pub(crate) struct Browser {
    client: Client,
    runtime: Runtime,
    _profile: TempDir,
}

impl Browser {
    /// Goes to an address.
    #[track_caller]
    pub(crate) fn go(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).expect("the page is there");
    }

    /// Runs the body of a function in the page, and returns what it returns.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        let run = self.client.execute(script, Vec::new());
        self.runtime.block_on(run).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What an expression is worth.
    #[track_caller]
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, expression: &str) {
        eventually(what, || self.value(&format!("Boolean({expression})")).as_bool()?.then_some(()));
    }

    /// Waits until an expression is worth this.
    #[track_caller]
    pub(crate) fn shows(&self, expression: &str, wanted: &Value) {
        let mut seen = Value::Null;
        let deadline = std::time::Instant::now() + PATIENCE;
        while seen != *wanted {
            seen = self.value(expression);
            assert!(
                seen == *wanted || std::time::Instant::now() < deadline,
                "{expression}: {seen}, not {wanted}"
            );
            super::wait::a_moment();
        }
    }

    /// Types a text, into whatever has the focus.
    #[track_caller]
    pub(crate) fn type_in(&self, text: &str) {
        let keys = text.chars().flat_map(|value| [KeyAction::Down { value }, KeyAction::Up { value }]);
        self.act(keys);
    }

    /// Presses a key.
    #[track_caller]
    pub(crate) fn press(&self, key: Key) {
        self.type_in(&char::from(key).to_string());
    }

    /// Presses a key while another is held.
    #[track_caller]
    pub(crate) fn chord(&self, held: Key, value: char) {
        let held = char::from(held);
        let down = [KeyAction::Down { value: held }, KeyAction::Down { value }];
        self.act(down.into_iter().chain([KeyAction::Up { value }, KeyAction::Up { value: held }]));
    }

    #[track_caller]
    fn act(&self, keys: impl Iterator<Item = KeyAction>) {
        let keys = keys.fold(KeyActions::new("keys".into()), |keys, key| keys.then(key));
        self.runtime.block_on(self.client.perform_actions(keys)).expect("keys can be pressed");
    }

    /// Chooses a file of this machine for the field that a selector finds.
    #[track_caller]
    pub(crate) fn choose(&self, selector: &str, file: &Path) {
        let path = file.to_str().expect("a temporary path is UTF-8");
        let chosen = async { self.client.find(Locator::Css(selector)).await?.send_keys(path).await };
        self.runtime.block_on(chosen).expect("a file can be chosen");
    }

    /// What the browser complained about, but for connections that could not be made.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.runtime.block_on(self.client.issue_cmd(Log)).expect("the driver keeps a log");
        let entries = log.as_array().cloned().unwrap_or_default();
        let complaints = entries.iter().filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
        let texts = complaints.filter_map(|entry| entry["message"].as_str().map(str::to_owned));
        texts.filter(|text| !text.contains("WebSocket connection")).collect()
    }

    /// Keeps what is seen as a picture, if `ANTAR_SCREENSHOTS` names a directory.
    #[track_caller]
    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("ANTAR_SCREENSHOTS") else { return };
        let png = self.runtime.block_on(self.client.screenshot()).expect("a picture");
        std::fs::write(Path::new(&folder).join(name).with_extension("png"), png)
            .expect("the directory is there");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let client = self.client.clone();
        let _ = self.runtime.block_on(async { timeout(PATIENCE, client.close()).await });
    }
}

/// What Chromium has in its console.
#[derive(Debug)]
struct Log;

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (::http::Method, Option<String>) {
        (::http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
