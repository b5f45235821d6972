//! Files over HTTP: as bytes in one request, whatever is broken off, and harmless for whoever looks at them in a browser.

use std::io::Write;
use std::net::TcpStream;

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::BROKER;
use super::files::noise;
use crate::harness::{Builder, Chat, HttpAnswer, Server, http_request, ok, text};

/// Longer than two parts.
const BYTES: usize = 1_200_000;

fn serve() -> Builder {
    BROKER.serve().env("LISTEN__HTTP", "127.0.0.1:0")
}

fn sum(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Sends a request with a token, more lines of its head, and a body.
#[track_caller]
fn ask(server: &Server, request: &str, token: &str, more: &[&str], body: &[u8]) -> HttpAnswer {
    let (first, bearer) = (format!("{request} HTTP/1.1"), format!("Authorization: Bearer {token}"));
    let head = [&[first.as_str(), &bearer], more].concat();
    http_request(server.http("realm1").expect("it has HTTP"), &head, body)
}

/// Sends a file, and returns the status and the JSON of the answer.
#[track_caller]
fn send(server: &Server, token: &str, query: &str, bytes: &[u8]) -> (u16, Value) {
    let length = format!("Content-Length: {}", bytes.len());
    let answer = ask(server, &format!("POST /files?{query}"), token, &[&length], bytes);
    (answer.status, serde_json::from_slice(&answer.body).expect("the answer is JSON"))
}

#[track_caller]
fn get(server: &Server, token: &str, id: &str) -> HttpAnswer {
    ask(server, &format!("GET /files/{id}"), token, &[], b"")
}

#[test]
fn a_file_goes_in_and_comes_out_as_it_was_over_a_crash() {
    let mut server = serve().start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let (bytes, id) = (noise(BYTES, 1), Uuid::now_v7());
    let query = format!("to=henderson,pele&name=../foto+%E2%98%83.bin&id={id}&sha256={}", sum(&bytes));
    let (status, sent) = send(&server, &messi.token, &query, &bytes);
    assert_eq!(status, 200, "{sent}");
    assert_eq!((text(&sent, "message"), text(&sent, "message_id")), ("File Sent", &*id.to_string()));
    assert_eq!(sent["unknown"], serde_json::json!(["pele"]));
    assert_eq!(text(&sent["file"], "sha256"), sum(&bytes));
    server.crash();
    [messi, henderson] = [messi, henderson].map(|chat| chat.again(&server, "realm1"));
    assert_eq!(henderson.inbox_of(1)[0]["file"], sent["file"]);
    let got = get(&server, &henderson.token, &id.to_string());
    assert_eq!(got.status, 200);
    assert!(got.body == bytes, "other bytes came out");
    for line in [
        "content-type: application/octet-stream",
        "content-disposition: attachment; filename=\"foto _.bin\"; filename*=utf-8''foto%20%e2%98%83.bin",
        "x-content-type-options: nosniff",
        "content-security-policy: sandbox; default-src 'none'",
        "content-length: 1200000",
    ] {
        assert!(got.head.contains(line), "{line} is not in {}", got.head);
    }
    assert!(got.head.contains("cache-control: no-store"));
    // The same again is the same, and no second message.
    let (status, again) = send(&server, &messi.token, &query, &bytes);
    assert_eq!((status, &again["duplicate"], &again["file"]), (200, &true.into(), &sent["file"]));
    assert!(henderson.inbox().is_empty());
    // A part over a line is one of those over HTTP.
    assert_eq!(ok(messi.cmd(&format!("getfile {id} part=3")))["parts"], 3);
    let lineker = Chat::login(&server, "realm1", "lineker");
    for (token, id) in [(&lineker.token, &*id.to_string()), (&messi.token, "x"), (&messi.token, "..%2f..")] {
        assert_eq!(get(&server, token, id).status, 404, "{id}");
    }
    assert_eq!(get(&server, "7", &id.to_string()).status, 401);
    assert_eq!(get(&server, &messi.token, &format!("{id}?token={}", messi.token)).status, 400);
    assert!(!server.log().contains(&messi.token), "no token in the log");
}

#[test]
fn a_picture_is_shown_and_what_only_says_so_is_not() {
    let server = serve().start();
    let messi = Chat::login(&server, "realm1", "messi");
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &noise(500, 1)].concat();
    for (bytes, kind, how) in [
        (png.as_slice(), "image/png", "inline"),
        (b"<html><script>alert(1)</script>", "application/octet-stream", "attachment"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "application/octet-stream", "attachment"),
    ] {
        let (status, sent) = send(&server, &messi.token, "to=messi&name=x.png", bytes);
        assert_eq!(status, 200, "{sent}");
        let got = get(&server, &messi.token, text(&sent, "file_id"));
        assert!(got.body == bytes);
        assert!(got.head.contains(&format!("content-type: {kind}\r\n")), "{}", got.head);
        assert!(got.head.contains(&format!("content-disposition: {how};")), "{}", got.head);
    }
}

#[test]
fn what_is_broken_off_is_sent_again_under_its_id() {
    let server = serve().start();
    let messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let (bytes, id) = (noise(BYTES, 2), Uuid::now_v7());
    let mut stream = TcpStream::connect(server.http("realm1").expect("it has HTTP")).expect("it listens");
    let head = format!(
        "POST /files?to=henderson&name=film.bin&id={id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {BYTES}\r\n\r\n",
        messi.token
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.write_all(&bytes[..700_000]).expect("it reads");
    drop(stream);
    let query = format!("to=henderson&name=film.bin&id={id}");
    assert!(henderson.inbox().is_empty());
    let (status, sent) = send(&server, &messi.token, &query, &bytes);
    assert_eq!(status, 200, "{sent}");
    assert_eq!(henderson.inbox_of(1)[0]["file"], sent["file"]);
    assert!(get(&server, &henderson.token, &id.to_string()).body == bytes);
    // Nothing that was stored can be replaced.
    let (status, other) = send(&server, &messi.token, &query, &noise(BYTES, 3));
    assert_eq!((status, text(&other, "code")), (409, "file-mismatch"));
}

#[test]
fn what_is_too_much_or_makes_no_sense_is_refused_before_its_bytes_are_read() {
    let server = serve().limit("file_bytes_max", 100_000).limit("user_file_bytes_max", 150_000).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let token = messi.token.clone();
    // None of these sends a body: an answer that waited for one would never come.
    for (query, length, status, code) in [
        ("to=henderson&name=x", "100001", 413, "file-too-large"),
        ("to=henderson&name=x", "9223372036854775807", 413, "file-too-large"),
        ("to=henderson&name=x", "0", 400, "bad-request"),
        ("to=pele&name=x", "9", 422, "no-such-user"),
        ("to=henderson", "9", 400, "bad-request"),
        ("name=x", "9", 400, "bad-request"),
        ("to=henderson&name=x&id=7", "9", 400, "bad-request"),
        ("to=henderson&name=x&token=y", "9", 400, "bad-request"),
    ] {
        let length = format!("Content-Length: {length}");
        let answer = ask(&server, &format!("POST /files?{query}"), &token, &[&length], b"");
        let body: Value = serde_json::from_slice(&answer.body).expect("the answer is JSON");
        assert_eq!((answer.status, text(&body, "code")), (status, code), "{query} {length} {body}");
    }
    let whole = "POST /files?to=henderson&name=x";
    assert_eq!(ask(&server, whole, &token, &[], b"").status, 411);
    let chunked = ask(&server, whole, &token, &["Transfer-Encoding: chunked"], b"");
    assert_eq!(chunked.status, 411);
    let unknown = ask(&server, whole, "7", &["Content-Length: 9"], b"");
    assert!(unknown.status == 401 && unknown.head.contains("www-authenticate: bearer"), "{}", unknown.head);
    assert_eq!(ok(messi.cmd("files"))["files"], serde_json::json!([]));
    let (status, wrong) =
        send(&server, &token, &format!("to=henderson&name=x&sha256={}", sum(b"x")), &noise(70_000, 4));
    assert_eq!((status, text(&wrong, "code")), (409, "file-mismatch"));
    assert_eq!(send(&server, &token, "to=henderson&name=x", &noise(80_000, 4)).0, 200);
    let full = ask(&server, whole, &token, &["Content-Length: 80000"], b"");
    assert_eq!(full.status, 507);
}

#[test]
fn a_large_file_takes_little_memory() {
    const LARGE: usize = 96 * 1024 * 1024;
    let server = serve().start();
    let messi = Chat::login(&server, "realm1", "messi");
    let idle_kib = server.memory_kib("VmHWM");
    let bytes = noise(LARGE, 5);
    let (status, sent) = send(&server, &messi.token, "to=messi&name=film.bin", &bytes);
    assert_eq!(status, 200, "{sent}");
    let got = get(&server, &messi.token, text(&sent, "file_id"));
    assert!(got.body == bytes, "other bytes came out");
    let peak_kib = server.memory_kib("VmHWM");
    assert!(
        peak_kib < idle_kib + LARGE as u64 * 3 / 4 / 1024,
        "{peak_kib} KiB at the most, {idle_kib} KiB before"
    );
}
