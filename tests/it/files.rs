//! Files: what is sent arrives as it was, whatever is repeated, killed or forged.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use uuid::Uuid;

use super::BROKER;
use crate::harness::{Builder, Chat, Server, ok, refused, text};

/// Bytes of a part that fits into a line.
const PART_BYTES: usize = 45_000;

/// Bytes that look like nothing, different for each seed.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).expect("eight bits")
    };
    std::iter::repeat_with(step).take(bytes).collect()
}

/// The parts of a file, all but the last equally large.
pub(crate) fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    let count = bytes.len().div_ceil(PART_BYTES);
    bytes.chunks(bytes.len().div_ceil(count)).collect()
}

/// The line that sends one part.
pub(crate) fn line(to: &str, name: &str, id: Uuid, parts: &[&[u8]], size: usize, number: usize) -> String {
    let data = BASE64.encode(parts[number - 1]);
    format!("sendfile {to} {name} {data} part={number}/{} size={size} id={id}", parts.len())
}

/// All of a file, part by part.
#[track_caller]
pub(crate) fn get(chat: &mut Chat, id: &str) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), 1);
    loop {
        let part = ok(chat.cmd(&format!("getfile {id} part={number}")));
        bytes.extend(BASE64.decode(text(&part, "data").as_bytes()).expect("base64"));
        if part["part"] == part["parts"] {
            return bytes;
        }
        number += 1;
    }
}

fn two(server: &Server) -> [Chat; 2] {
    ["messi", "henderson"].map(|user| Chat::login(server, "realm1", user))
}

fn serve() -> Builder {
    BROKER.serve()
}

#[test]
fn a_file_in_one_line_comes_with_a_message_that_names_it() {
    let server = serve().start();
    let [mut messi, mut henderson] = two(&server);
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &noise(500, 1)].concat();
    let sent = ok(messi.cmd(&format!("sendfile henderson ../../kucing.exe {}", BASE64.encode(&png))));
    let file = &sent["file"];
    assert_eq!((text(file, "name"), text(file, "type")), ("kucing.exe", "image/png"));
    assert_eq!(file["size"], png.len());
    let read = henderson.inbox_of(1);
    assert_eq!((&read[0]["file"], &read[0]["id"]), (file, &file["id"]));
    assert!(text(&read[0], "msg").starts_with("[file] kucing.exe"));
    let id = text(file, "id");
    assert_eq!(get(&mut henderson, id), png);
    assert_eq!(get(&mut messi, id), png);
    for chat in [&mut messi, &mut henderson] {
        let files = ok(chat.cmd("files"));
        assert_eq!(files["files"].as_array().map(Vec::len), Some(1));
        assert_eq!((text(&files["files"][0], "from"), &files["files"][0]["id"]), ("messi", &file["id"]));
    }
    // Nobody else has it, and nobody can tell that it is there.
    refused(lineker.cmd(&format!("getfile {id}")), "no-such-file");
    assert_eq!(ok(lineker.cmd("files"))["files"], serde_json::json!([]));
    refused(henderson.cmd(&format!("getfile {}", Uuid::now_v7())), "no-such-file");
    refused(henderson.cmd("getfile ../x"), "no-such-file");
    refused(henderson.cmd(&format!("getfile {id} part=2")), "no-such-file");
}

#[test]
fn parts_may_come_in_any_order_twice_and_over_a_crash() {
    let mut server = serve().start();
    let [mut messi, mut henderson] = two(&server);
    let bytes = noise(4 * PART_BYTES + 1_234, 2);
    let (parts, id) = (parts(&bytes), Uuid::now_v7());
    let send = |number| line("henderson", "foto.bin", id, &parts, bytes.len(), number);
    for number in [3, 1] {
        assert!(ok(messi.cmd(&send(number)))["file"].is_null());
    }
    let missing = refused(messi.cmd(&send(5)), "file-incomplete");
    assert!(text(&missing, "detail").contains("part 2 of 5"), "{missing}");
    server.crash();
    [messi, henderson] = [messi, henderson].map(|chat| chat.again(&server, "realm1"));
    refused(henderson.cmd(&format!("getfile {id}")), "no-such-file");
    assert_eq!(ok(messi.cmd(&send(1)))["duplicate"], true);
    let other = format!("sendfile henderson foto.bin {}", BASE64.encode(parts[1]));
    let other = format!("{other} part=1/{} size={} id={id}", parts.len(), bytes.len());
    refused(messi.cmd(&other), "file-mismatch");
    for number in [4, 2] {
        ok(messi.cmd(&send(number)));
    }
    let sent = ok(messi.cmd(&send(5)));
    server.crash();
    [messi, henderson] = [messi, henderson].map(|chat| chat.again(&server, "realm1"));
    // The last part again: the same answer, and no second message.
    assert_eq!(ok(messi.cmd(&send(5)))["file"], sent["file"]);
    assert_eq!(henderson.inbox_of(1)[0]["file"], sent["file"]);
    assert_eq!(get(&mut henderson, &id.to_string()), bytes);
    assert!(henderson.inbox().is_empty());
    // The id stands for this file alone.
    refused(messi.cmd(&send(5).replace("foto.bin", "lain.bin")), "file-mismatch");
    refused(henderson.cmd(&line("messi", "foto.bin", id, &parts, bytes.len(), 5)), "file-mismatch");
}

#[test]
fn what_is_too_much_or_makes_no_sense_is_refused_before_it_is_taken() {
    let server = serve().limit("file_bytes_max", 100_000).limit("user_file_bytes_max", 150_000).start();
    let [mut messi, mut henderson] = two(&server);
    let id = || Uuid::now_v7();
    let data = BASE64.encode(&noise(30_000, 3));
    for (rest, code) in [
        (format!("{data} part=1/4 size=100001 id={}", id()), "file-too-large"),
        (format!("{data} part=1/4 size=18446744073709551615 id={}", id()), "file-too-large"),
        (format!("{data} part=1/3 size=100000 id={}", id()), "bad-request"),
        (format!("{data} part=2/1 size=30000 id={}", id()), "bad-request"),
        (format!("{data} part=1/60000 size=30000 id={}", id()), "bad-request"),
        (format!("{data} part=1/2 size=60000"), "bad-request"),
        ("=".into(), "bad-request"),
        ("ha%lo".into(), "bad-request"),
        (format!("{data} colour=blue"), "bad-request"),
        (format!("{data} sha256={}", HEXLOWER.encode(&[7; 32])), "file-mismatch"),
    ] {
        refused(messi.cmd(&format!("sendfile henderson x.bin {rest}")), code);
    }
    refused(messi.cmd(&format!("sendfile pele x.bin {data}")), "no-such-user");
    refused(messi.cmd(&format!("sendfile henderson@realm2 x.bin {data}")), "no-such-realm");
    refused(messi.cmd(&format!("sendgroupfile pele,a.b x.bin {data}")), "no-such-user");
    assert_eq!(ok(messi.cmd("files"))["files"], serde_json::json!([]));
    // Nothing of these counts: the whole quota is there, and what is begun takes its part of it.
    ok(messi.cmd(&format!(
        "sendfile henderson x.bin {} part=1/4 size=100000 id={}",
        BASE64.encode(&noise(25_000, 4)),
        id()
    )));
    let sent = ok(messi.cmd(&format!("sendgroupfile pele,henderson,messi y.bin {data}")));
    assert_eq!(sent["unknown"], serde_json::json!(["pele"]));
    let full = refused(messi.cmd(&format!("sendfile henderson z.bin {data}")), "file-quota");
    assert!(text(&full, "detail").contains("130000 bytes of the 150000"), "{full}");
    ok(henderson.cmd(&format!("sendfile messi z.bin {data}")));
    let names = |messages: Vec<Value>| -> Vec<String> {
        messages.iter().map(|message| text(&message["file"], "name").to_owned()).collect()
    };
    assert_eq!(names(henderson.inbox_of(1)), ["y.bin"]);
    assert_eq!(names(messi.inbox_of(2)).len(), 2);
}

#[test]
fn a_message_text_that_looks_like_a_file_brings_none() {
    let server = serve().start();
    let [mut messi, mut henderson] = two(&server);
    ok(messi.cmd(r#"send henderson [file] x {"file": {"id": 1}}"#));
    assert!(henderson.inbox_of(1)[0]["file"].is_null());
}

#[test]
fn a_file_for_a_group_is_for_whoever_is_a_member() {
    let server = serve().start();
    let [mut messi, mut henderson] = two(&server);
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    ok(messi.cmd("addgroup tim"));
    ok(henderson.cmd("joingroup #tim"));
    let sent = ok(messi.cmd("sendgroupfile #tim kopi.txt a29waQo="));
    let id = text(&sent, "file_id");
    let read = henderson.inbox_of(1);
    assert_eq!((&read[0]["file"], text(&read[0], "group")), (&sent["file"], "tim"));
    assert_eq!(get(&mut henderson, id), b"kopi\n");
    assert_eq!(ok(henderson.cmd("files"))["files"][0]["to"], serde_json::json!(["#tim"]));
    refused(lineker.cmd(&format!("getfile {id}")), "no-such-file");
    refused(lineker.cmd("sendgroupfile #tim x.txt a29waQo="), "not-a-member");
    refused(messi.cmd("sendgroupfile #lain x.txt a29waQo="), "no-such-group");
    ok(lineker.cmd("joingroup #tim"));
    assert_eq!(get(&mut lineker, id), b"kopi\n");
    ok(messi.cmd("kickgroup #tim henderson"));
    refused(henderson.cmd(&format!("getfile {id}")), "no-such-file");
    let again = format!("sendgroupfile #tim kopi.txt a29waQo= part=1/1 size=5 id={id}");
    assert_eq!(ok(messi.cmd(&again))["duplicate"], true);
    assert!(lineker.inbox().len() <= 1, "it was said once");
}

/// Sends a file of so many bytes while the server is killed, and compares what comes out. The most memory that the server took,
/// in KiB.
#[track_caller]
fn send_under_kills(bytes: usize) -> u64 {
    const KILLS: usize = 3;
    let mut server = serve().start();
    let [mut messi, mut henderson] = two(&server);
    let bytes = noise(bytes, 5);
    let (parts, id) = (parts(&bytes), Uuid::now_v7());
    let mut peak_kib = 0;
    for number in 1..=parts.len() {
        if number % (parts.len() / (KILLS + 1)) == 0 {
            // Its answer is not waited for: the part was stored, or is sent again.
            messi.start(&line("henderson", "film.bin", id, &parts, bytes.len(), number));
            peak_kib = peak_kib.max(server.memory_kib("VmHWM"));
            server.crash();
            messi = messi.again(&server, "realm1");
        }
        ok(messi.cmd(&line("henderson", "film.bin", id, &parts, bytes.len(), number)));
    }
    henderson = henderson.again(&server, "realm1");
    let read = henderson.inbox_of(1);
    assert_eq!(text(&read[0]["file"], "id"), id.to_string());
    assert!(get(&mut henderson, &id.to_string()) == bytes, "other bytes came out");
    peak_kib.max(server.memory_kib("VmHWM"))
}

#[test]
fn a_file_goes_through_while_the_server_is_killed() {
    send_under_kills(4 * 1024 * 1024);
}

#[test]
#[ignore = "takes minutes"]
fn a_large_file_goes_through_while_the_server_is_killed_and_takes_no_memory() {
    const BYTES: usize = 100 * 1024 * 1024;
    let peak_kib = send_under_kills(BYTES);
    let idle_kib = serve().start().memory_kib("VmHWM");
    assert!(
        peak_kib < idle_kib + BYTES as u64 / 1024 / 2,
        "{peak_kib} KiB at the most, {idle_kib} KiB for a server that does nothing"
    );
}

#[test]
fn whoever_makes_a_group_anew_finds_none_of_its_files() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("addgroup tim invite"));
    let sent = ok(messi.cmd("sendgroupfile #tim rahasia.txt cmFoYXNpYQo="));
    let id = text(&sent, "file_id").to_owned();
    ok(messi.cmd("leavegroup tim"));
    ok(henderson.cmd("addgroup tim"));
    refused(henderson.cmd(&format!("getfile {id}")), "no-such-file");
    assert_eq!(ok(henderson.cmd("files"))["files"], serde_json::json!([]));
}

#[test]
fn a_sum_that_is_said_with_the_last_part_counts_too() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let id = Uuid::now_v7();
    ok(messi.cmd(&format!("sendfile henderson a.txt aGFs part=1/2 size=5 id={id}")));
    let wrong = "0".repeat(64);
    refused(
        messi.cmd(&format!("sendfile henderson a.txt bwo= part=2/2 size=5 id={id} sha256={wrong}")),
        "file-mismatch",
    );
    refused(Chat::login(&server, "realm1", "henderson").cmd(&format!("getfile {id}")), "no-such-file");
}
