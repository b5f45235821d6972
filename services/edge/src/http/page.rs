//! The page: a client in the browser, from the same host and port as the WebSocket that it talks over.
//!
//! Owns: its files, which are part of the program, and what a browser may do with them. Must not know: what they do; the page
//! is a client like any other, and knows no more than the protocol.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use sha1::{Digest as _, Sha1};

use super::Served;

/// Nothing but what this server itself has: no script or style that stands in a text, nothing from third parties, and no
/// page around it. Pictures are fetched with the token and shown as `blob:`.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                                       connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

/// The files, by the path where they are served and that below `page/`.
macro_rules! assets {
    ($($path:literal $kind:ident $file:literal),* $(,)?) => {
        &[$(Asset { path: $path, kind: $kind, bytes: include_bytes!(concat!("page/", $file)) }),*]
    };
}

static ASSETS: &[Asset] = assets! {
    "/" HTML "index.html",
    "/icon.svg" SVG "icon.svg",
    "/style.css" CSS "style.css",
    "/chat.css" CSS "chat.css",
    "/main.js" SCRIPT "main.js",
    "/dom.js" SCRIPT "dom.js",
    "/files.js" SCRIPT "files.js",
    "/format.js" SCRIPT "format.js",
    "/i18n.js" SCRIPT "i18n.js",
    "/net.js" SCRIPT "net.js",
    "/outbox.js" SCRIPT "outbox.js",
    "/prefs.js" SCRIPT "prefs.js",
    "/session.js" SCRIPT "session.js",
    "/store.js" SCRIPT "store.js",
    "/words.js" SCRIPT "words.js",
    "/view/body.js" SCRIPT "view/body.js",
    "/view/chat.js" SCRIPT "view/chat.js",
    "/view/composer.js" SCRIPT "view/composer.js",
    "/view/dialogs.js" SCRIPT "view/dialogs.js",
    "/view/list.js" SCRIPT "view/list.js",
    "/view/login.js" SCRIPT "view/login.js",
    "/view/messages.js" SCRIPT "view/messages.js",
    "/view/palette.js" SCRIPT "view/palette.js",
    "/view/search.js" SCRIPT "view/search.js",
};

/// A route for each file.
pub(super) fn routes() -> Router<Served> {
    ASSETS.iter().fold(Router::new(), |routes, asset| {
        let tag = tag(asset.bytes);
        routes.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &tag, &headers) }))
    })
}

/// Names what a file holds, so that a browser that has it is told so and sent nothing.
fn tag(bytes: &[u8]) -> HeaderValue {
    let tag = format!("\"{}\"", HEXLOWER.encode(&Sha1::digest(bytes)));
    HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes are a value")
}

fn answer(asset: &Asset, tag: &HeaderValue, asked: &HeaderMap) -> Response {
    let fixed = |name: HeaderName, value| (name, HeaderValue::from_static(value));
    let headers = [
        (header::ETAG, tag.clone()),
        // A new version of the program is a new page at once.
        fixed(header::CACHE_CONTROL, "no-cache"),
        fixed(header::CONTENT_TYPE, asset.kind),
        fixed(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        fixed(header::REFERRER_POLICY, "no-referrer"),
    ];
    let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|known| known == tag);
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.bytes).expect("the page is text")
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
        let mut found = BTreeSet::new();
        for folder in [root.clone(), root.join("view")] {
            for entry in fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
                let path = entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.insert(if path == "index.html" { "/".into() } else { format!("/{path}") });
            }
        }
        let served: BTreeSet<_> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, found);
    }

    #[test]
    fn what_a_module_imports_is_there() {
        for asset in ASSETS.iter().filter(|asset| asset.kind == SCRIPT) {
            for line in text(asset).lines().filter(|line| line.starts_with("import ")) {
                let from = line.split('\'').nth(1).expect("an import names a file");
                let folder = asset.path.rsplit_once('/').unwrap().0;
                let path = match from.strip_prefix("../") {
                    Some(above) => format!("/{above}"),
                    None => format!("{folder}/{}", from.strip_prefix("./").unwrap()),
                };
                assert!(ASSETS.iter().any(|asset| asset.path == path), "{}: {line}", asset.path);
            }
        }
    }

    #[test]
    fn no_text_becomes_markup_or_script() {
        let ways = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ];
        for asset in ASSETS.iter().filter(|asset| asset.kind == SCRIPT) {
            for (at, line) in text(asset).lines().enumerate().filter(|(_, line)| !line.starts_with("//")) {
                assert!(!ways.iter().any(|way| line.contains(way)), "{}:{}: {line}", asset.path, at + 1);
            }
        }
        let page = text(&ASSETS[0]);
        assert!(!page.contains("<style") && !page.contains("onclick") && !page.contains("://"), "{page}");
    }

    #[test]
    fn no_file_of_the_page_is_long() {
        for asset in ASSETS {
            assert!(text(asset).lines().count() <= 500, "{}", asset.path);
        }
    }

    #[test]
    fn both_languages_have_the_same_words() {
        let words = ASSETS.iter().find(|asset| asset.path == "/words.js").map(text).unwrap();
        let (en, id) = words.split_once("const id = {").unwrap();
        let keys = |text: &'static str| -> BTreeSet<&str> {
            // A key is what stands in quotes before a colon.
            text.split("': ").filter_map(|part| part.rsplit('\'').next()).collect()
        };
        let last = |mut keys: BTreeSet<&'static str>| {
            keys.retain(|key| !key.is_empty() && !key.contains([' ', '}']));
            keys
        };
        assert_eq!(last(keys(en)), last(keys(id)));
        assert!(last(keys(en)).len() > 100);
    }

    #[test]
    fn who_has_a_file_is_not_sent_it_again() {
        let tag = tag(ASSETS[0].bytes);
        let mut asked = HeaderMap::new();
        assert_eq!(answer(&ASSETS[0], &tag, &asked).status(), StatusCode::OK);
        asked.insert(header::IF_NONE_MATCH, tag.clone());
        assert_eq!(answer(&ASSETS[0], &tag, &asked).status(), StatusCode::NOT_MODIFIED);
    }
}
