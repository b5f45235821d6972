//! The page in a real browser: two people talk, ticks change, an edge is killed meanwhile, files, groups, and texts that
//! try to be more than texts. Everything is done by keys, as by somebody without a mouse.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::harness::{
    Browser, Builder, Chat, Driver, PASSWORD, Server, eventually, free_port, holds_for, http_request, ok,
};

/// The smallest picture there is: one pixel.
const PIXEL: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDAT\
x\xdac\xe0/\xcb\x03\0\x01\x8b\0\xf4\x028\xf3\x86\0\0\0\0IEND\xaeB`\x82";

/// What is shown of the messages of the open conversation.
const TEXTS: &str = "[...document.querySelectorAll('.row .text')].map((node) => node.textContent)";
/// How far each of one's own has come.
const TICKS: &str = "[...document.querySelectorAll('.row.mine .tick')].map((node) => node.dataset.state)";
/// How many pictures are there to be seen.
const PICTURES: &str =
    "[...document.querySelectorAll('.picture')].filter((img) => img.naturalWidth > 0).length";

fn http(server: &Server, realm: &str) -> SocketAddr {
    server.http(realm).expect("a demo serves the page")
}

fn log_in(browser: &Browser, server: &Server, realm: &str, user: &str) {
    browser.go(&format!("http://{}/", http(server, realm)));
    browser.until("the form is ready", "document.activeElement?.name === 'user'");
    browser.type_in(user);
    browser.press(Key::Tab);
    browser.type_in(PASSWORD);
    browser.press(Key::Enter);
    browser.until("the conversations are there", "document.querySelector('.side')");
}

/// Goes to a conversation by Ctrl-K and its address.
fn go_to(browser: &Browser, address: &str) {
    browser.chord(Key::Control, 'k');
    browser.until("names are asked for", "document.activeElement?.role === 'combobox'");
    browser.type_in(address);
    browser.until("it is offered", "document.querySelector('#palette-list li.chosen')");
    browser.press(Key::Enter);
}

fn can_type(browser: &Browser) {
    browser.until("the line has the focus", "document.activeElement?.id === 'composer'");
}

fn say(browser: &Browser, text: &str) {
    can_type(browser);
    browser.type_in(text);
    browser.press(Key::Enter);
}

/// Chooses a file for the open conversation.
fn choose_picture(browser: &Browser, server: &Server) {
    let picture = server.dir().join("titik.png");
    fs::write(&picture, PIXEL).expect("it can be written");
    browser.choose(".composer input[type=file]", &picture);
}

fn assert_quiet(browser: &Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_page_is_served_with_a_strict_policy_and_not_sent_twice() {
    let server = Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = http(&server, "realm1");
    let page = http_request(addr, &["GET / HTTP/1.1"], b"");
    assert_eq!(page.status, 200, "{}", page.head);
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-cache",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(page.head.contains(header), "{header}: {}", page.head);
    }
    let script = http_request(addr, &["GET /main.js HTTP/1.1"], b"");
    assert!(script.head.contains("content-type: text/javascript"), "{}", script.head);
    let tag = script.head.lines().find(|line| line.starts_with("etag: ")).expect("it has a tag");
    let known = format!("If-None-Match: {}", tag.trim_start_matches("etag: "));
    let again = http_request(addr, &["GET /main.js HTTP/1.1", &known], b"");
    assert_eq!((again.status, again.body.len()), (304, 0), "{}", again.head);
    assert_eq!(http_request(addr, &["GET /view/ HTTP/1.1"], b"").status, 404);
    assert_eq!(http_request(addr, &["GET /../Cargo.toml HTTP/1.1"], b"").status, 404);
}

#[test]
fn two_people_in_two_realms_talk_and_see_how_far_their_messages_have_come() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::demo();
    let messi = driver.browser();
    log_in(&messi, &server, "realm1", "messi");
    messi.until("what there is was loaded", "document.querySelector('.side-hint:not([hidden])')");
    // The other realm is not known yet: it is asked for, and added.
    go_to(&messi, "lineker@realm2");
    messi.until("the realm is asked for", "document.activeElement?.name === 'realm'");
    messi.press(Key::Enter);
    can_type(&messi);
    server.operate(&["realm", "pause", "realm2"]);
    say(&messi, "halo realm sebelah");
    messi.shows(TICKS, &json!(["stored"]));
    // What waits there is told, above the line and at the side.
    let lane = "document.querySelector('.lane-note:not([hidden])')?.textContent ?? ''";
    messi.until("the lane's state is shown", &format!("/^realm2: .*1 queued/.test({lane})"));
    messi.until(
        "it is at the side",
        "/^(waiting|paused).*1 queued$/.test(document.querySelector('.talk-last.lane')?.textContent)",
    );
    messi.picture("lane");
    server.operate(&["realm", "resume", "realm2"]);
    messi.shows(TICKS, &json!(["delivered"]));
    messi.until("the lane has nothing to say", "document.querySelector('.lane-note').hidden");

    let lineker = driver.dark_browser();
    log_in(&lineker, &server, "realm2", "lineker");
    lineker.shows("document.title", &json!("(1) Antar"));
    messi.shows(TICKS, &json!(["read"]));
    lineker.shows("document.querySelector('.badge')?.dataset.unread", &json!("1"));
    lineker.chord(Key::Alt, 'a');
    lineker.shows(TEXTS, &json!(["halo realm sebelah"]));
    lineker.shows("document.title", &json!("Antar"));
    can_type(&lineker);
    lineker.type_in("halo juga @me");
    lineker.press(Key::Tab);
    lineker.shows("document.querySelector('#composer').value", &json!("halo juga @messi "));
    lineker.press(Key::Enter);
    messi.shows(TEXTS, &json!(["halo realm sebelah", "halo juga @messi"]));
    messi.shows("document.querySelector('mark.me')?.textContent", &json!("@messi"));
    lineker.picture("dark");
    // In another conversation it counts, and being spoken to counts apart.
    go_to(&messi, "henderson");
    can_type(&messi);
    say(&lineker, "satu");
    say(&lineker, "@messi dua");
    messi.shows("document.querySelector('.badge:not(.mention)')?.dataset.unread", &json!("2"));
    messi.until("a mention is marked", "document.querySelector('.badge.mention')");
    messi.chord(Key::Alt, 'a');
    messi.until("it is read", "!document.querySelector('.badge')");
    messi.until("where the new ones begin is shown", "document.querySelector('.new-line')");
    // A picture goes to the other realm, too.
    choose_picture(&messi, &server);
    [&messi, &lineker].into_iter().for_each(|browser| browser.shows(PICTURES, &json!(1)));
    // A reload stays logged in, and shows all of it once.
    messi.run("location.reload()");
    messi.until("it is there again", "document.querySelector('.talk-button')");
    messi.shows(TEXTS, &json!(["halo realm sebelah", "halo juga @messi", "satu", "@messi dua"]));
    messi.shows(PICTURES, &json!(1));
    // Search looks in the realm.
    messi.press(Key::Escape);
    messi.type_in("/");
    messi.until("search is open", "document.activeElement?.role === 'searchbox'");
    messi.type_in("SEBELAH");
    messi.until("it is found", "document.querySelectorAll('.found-button').length === 1");
    messi.press(Key::Down);
    messi.press(Key::Enter);
    messi.until(
        "it is shown",
        "document.querySelector('.row.found .text')?.textContent === 'halo realm sebelah'",
    );
    messi.type_in("?");
    messi.until("help is open", "document.querySelector('dialog.help kbd')");
    messi.press(Key::Escape);
    messi.until("it is closed", "!document.querySelector('dialog')");
    [&messi, &lineker].into_iter().for_each(assert_quiet);
}

#[test]
fn an_edge_that_is_killed_in_the_middle_of_typing_loses_and_doubles_nothing() {
    let Some(driver) = Driver::start() else { return };
    // The page comes back to the address that it is from.
    let mut server = Builder::serve().env("LISTEN__HTTP", format!("127.0.0.1:{}", free_port())).start();
    let (messi, henderson) = (driver.browser(), driver.browser());
    log_in(&messi, &server, "realm1", "messi");
    log_in(&henderson, &server, "realm1", "henderson");
    go_to(&messi, "henderson");
    say(&messi, "satu");
    messi.shows(TICKS, &json!(["read"]));
    go_to(&henderson, "messi");
    henderson.shows(TEXTS, &json!(["satu"]));
    can_type(&messi);
    // Nobody waits for the answer to the second one: whether it was stored is not known.
    messi.type_in("dua");
    messi.press(Key::Enter);
    messi.type_in("seteng");
    server.kill9();
    messi.until("the outage is shown", "!document.querySelector('.banner').hidden");
    messi.type_in("ah jalan");
    messi.press(Key::Enter);
    say(&messi, "emp");
    messi.shows("document.querySelectorAll('.row.queued').length >= 2", &json!(true));
    messi.picture("outage");
    // The last one was not sent yet: it can be changed. What is begun after it stays where it is.
    messi.press(Key::Up);
    messi.shows("document.querySelector('#composer').value", &json!("emp"));
    messi.type_in("at");
    messi.press(Key::Enter);
    messi.type_in("konsep yang");
    server.start();
    messi.until("it is connected again", "document.querySelector('.banner').hidden");
    let all = json!(["satu", "dua", "setengah jalan", "empat"]);
    messi.shows(TEXTS, &all);
    henderson.shows(TEXTS, &all);
    messi.shows(TICKS, &json!(["read", "read", "read", "read"]));
    messi.type_in(" tinggal");
    messi.shows("document.querySelector('#composer').value", &json!("konsep yang tinggal"));
    // A draft stays with its conversation.
    messi.press(Key::Escape);
    go_to(&messi, "lineker");
    messi.shows("document.querySelector('#composer').value", &json!(""));
    go_to(&messi, "henderson");
    messi.shows("document.querySelector('#composer').value", &json!("konsep yang tinggal"));
    let mut chat = Chat::login(&server, "realm1", "messi");
    let history = ok(chat.cmd("history henderson"));
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(4), "{history}");
    [&messi, &henderson].into_iter().for_each(assert_quiet);
}

#[test]
fn a_group_is_made_and_joined_and_pictures_are_sent_in_all_ways() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::demo();
    let (messi, henderson) = (driver.browser(), driver.phone());
    log_in(&messi, &server, "realm1", "messi");
    log_in(&henderson, &server, "realm1", "henderson");
    messi.chord(Key::Control, 'k');
    messi.until("names are asked for", "document.activeElement?.role === 'combobox'");
    messi.type_in("#tim");
    // To join it is the first offer, to make it the second.
    messi.press(Key::Down);
    messi.press(Key::Enter);
    say(&messi, "halo tim");
    go_to(&henderson, "#tim");
    can_type(&henderson);
    henderson.shows(TEXTS, &json!(["halo tim"]));
    say(&henderson, "siap");
    messi.shows(TEXTS, &json!(["halo tim", "siap"]));
    messi.shows("document.querySelector('.row:not(.mine) .who')?.textContent", &json!("Jordan Henderson"));

    // Who is there is told of everybody in the group.
    messi.run("document.querySelector('[aria-label=Members]').focus()");
    messi.press(Key::Enter);
    messi.until("both are there", "document.querySelectorAll('.members .dot').length === 2");
    messi.press(Key::Escape);

    // A file that is chosen, for the group; one that is pasted and one that is dropped, for somebody.
    choose_picture(&messi, &server);
    [&messi, &henderson].into_iter().for_each(|browser| browser.shows(PICTURES, &json!(1)));
    go_to(&messi, "henderson");
    can_type(&messi);
    let file = "const data = new DataTransfer(); \
        const canvas = document.createElement('canvas'); canvas.width = 320; canvas.height = 200; \
        const pen = canvas.getContext('2d'); pen.fillStyle = '#0f766e'; pen.fillRect(0, 0, 320, 200); \
        pen.fillStyle = '#5eead4'; pen.fillRect(40, 40, 120, 120); \
        return new Promise((done) => canvas.toBlob(done)).then((blob) => { \
        data.items.add(new File([blob], NAME, { type: 'image/png' })); ";
    let event = |name: &str, sent: &str| format!("{}{sent} }});", file.replace("NAME", &format!("'{name}'")));
    messi.run(&event(
        "tempel.png",
        "document.querySelector('#composer').dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));",
    ));
    messi.shows(PICTURES, &json!(1));
    messi.run(&event(
        "lepas.png",
        "document.querySelector('.talk').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));",
    ));
    messi.shows(PICTURES, &json!(2));
    henderson.press(Key::Escape);
    henderson.chord(Key::Alt, 'a');
    henderson.shows(PICTURES, &json!(2));
    henderson.picture("phone");
    // A phone's width has room for all of it.
    henderson.shows("document.documentElement.scrollWidth <= innerWidth", &json!(true));
    messi.shows(
        "[...document.querySelectorAll('.row.mine .tick')].every((tick) => tick.dataset.state === 'read')",
        &json!(true),
    );
    [&messi, &henderson].into_iter().for_each(assert_quiet);
}

#[test]
fn texts_and_names_that_are_full_of_html_stay_texts() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::demo();
    let mut evil = server.connect("realm1");
    let name = "<img src=x onerror=pwned=1><script>pwned=1</script>";
    let token = ok(evil.ask(&format!("register xss rahasia123 <b>x</b> {name}")))["tokenid"].clone();
    let token = token.as_str().expect("a token").to_owned();
    let texts = [
        "<script>pwned=1</script><img src=x onerror=\"pwned=1\"><svg/onload=pwned=1><iframe srcdoc='<script>parent.pwned=1</script>'>",
        "javascript:pwned=1 https://contoh.id/\"onmouseover=\"pwned=1 http://[ <a href=\"javascript:pwned=1\">klik</a> &lt;b&gt;",
        "\u{202e}terbalik\u{202c} {{7*7}} ${7*7} %3Cscript%3E \u{0}".trim_end_matches('\u{0}'),
    ];
    let messi = driver.browser();
    log_in(&messi, &server, "realm1", "messi");
    for text in texts {
        ok(evil.ask(&format!("send {token} messi {text}")));
    }
    messi.until("they are there", "document.querySelector('.badge')");
    messi.chord(Key::Alt, 'a');
    messi.shows(TEXTS, &Value::from(texts.map(str::trim).to_vec()));
    messi.until(
        "the name is one, too",
        &format!("document.querySelector('.talk-title').textContent.includes({})", json!(name)),
    );
    messi.press(Key::Escape);
    messi.type_in("/");
    messi.until("search is open", "document.activeElement?.role === 'searchbox'");
    messi.type_in("script");
    messi.until("it is found", "document.querySelector('.found-button')");
    let made = "document.querySelectorAll('.row img, .row svg:not(.icon), .row iframe, .row script, .found-list img, b b').length";
    messi.shows(made, &json!(0));
    messi.shows(
        "[...document.querySelectorAll('.row a')].every((a) => a.protocol.startsWith('http'))",
        &json!(true),
    );
    assert!(
        holds_for(Duration::from_millis(200), || messi.value("typeof pwned") == "undefined"),
        "nothing ran"
    );
    assert_quiet(&messi);
}

#[test]
fn what_cannot_be_sent_stays_with_its_reason_and_can_be_tried_again() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::demo();
    let messi = driver.browser();
    messi.go(&format!("http://{}/", http(&server, "realm1")));
    messi.until("the form is ready", "document.activeElement?.name === 'user'");
    messi.picture("login");
    messi.type_in("messi");
    messi.press(Key::Tab);
    messi.type_in("salah");
    messi.press(Key::Enter);
    messi.until("why is told", "/password is wrong/.test(document.querySelector('.form-error').textContent)");
    // What was typed is selected: the next letters take its place.
    messi.until("it can be typed again", "document.activeElement?.type === 'password'");
    messi.type_in(PASSWORD);
    messi.press(Key::Enter);
    messi.until("the conversations are there", "document.querySelector('.side')");
    let mut chat = Chat::login(&server, "realm1", "henderson");
    ok(chat.cmd("send messi halo"));
    ok(chat.cmd("block messi"));
    go_to(&messi, "henderson");
    say(&messi, "masih di sana?");
    messi.shows(TICKS, &json!(["failed"]));
    messi.shows("document.querySelector('.reason span').textContent", &json!("There is no such user"));
    // It is still there after a reload, and goes when it can.
    messi.run("location.reload()");
    messi.until("it is there again", "document.querySelector('.talk-button')");
    go_to(&messi, "henderson");
    messi.shows(TICKS, &json!(["failed"]));
    ok(chat.cmd("unblock messi"));
    messi.run("document.querySelector('.retry').focus()");
    messi.press(Key::Enter);
    messi
        .until("it goes", "/stored|delivered/.test(document.querySelector('.row.mine .tick').dataset.state)");
    let inbox = eventually("it is in the mailbox", || Some(chat.inbox()).filter(|inbox| !inbox.is_empty()));
    assert_eq!((inbox.len(), &inbox[0]["msg"]), (1, &json!("masih di sana?")));
    messi.shows(TICKS, &json!(["read"]));
    // The other language, by its list; and everything that can be pressed has a name.
    messi.run("const list = document.querySelector('.side-foot select'); list.value = 'id'; list.dispatchEvent(new Event('change'))");
    messi.shows("document.querySelector('#side-people').textContent", &json!("Orang"));
    messi.shows("document.documentElement.lang", &json!("id"));
    messi.shows("document.querySelector('.tick').title", &json!("Dibaca"));
    messi.shows(
        "[...document.querySelectorAll('button')].filter((one) => !(one.ariaLabel || one.textContent.trim())).length",
        &json!(0),
    );
    // Out: nothing is left to come back with.
    messi.run("document.querySelector('[aria-label=Keluar]').focus()");
    messi.press(Key::Enter);
    messi.until("the form is back", "document.querySelector('#login-user')");
    messi.shows("sessionStorage.length", &json!(0));
    assert_quiet(&messi);
}

#[test]
fn a_thousand_messages_are_shown_as_they_come() {
    const COUNT: usize = 1000;
    let Some(driver) = Driver::start() else { return };
    let server = Server::demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi 0 awal"));
    let messi = driver.browser();
    log_in(&messi, &server, "realm1", "messi");
    go_to(&messi, "henderson");
    messi.until("the first is there", "document.querySelectorAll('.row').length === 1");
    messi.run(
        "window.gaps = []; window.tasks = []; let last = performance.now(); \
         const frame = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(frame); }; requestAnimationFrame(frame); \
         new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => tasks.push(duration))) \
         .observe({ type: 'longtask' });",
    );
    let lines: String = (1..=COUNT)
        .map(|n| {
            henderson.line(&format!(
                "send messi {n} kabar yang cukup panjang untuk dua baris di layar yang sempit"
            )) + "\r\n"
        })
        .collect();
    let mut writer = henderson.writer();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()));
    (0..COUNT).for_each(|_| drop(ok(henderson.reply())));
    sending.join().expect("it does not panic").expect("everything is written");
    let last = "[...document.querySelectorAll('.row .text')].at(-1)?.textContent.split(' ')[0]";
    messi.shows(last, &json!(COUNT.to_string()));
    let numbers = "[...document.querySelectorAll('.row .text')].map((node) => parseInt(node.textContent))";
    messi.shows(&format!("{numbers}.every((n, at, all) => at === 0 || n === all[at - 1] + 1)"), &json!(true));
    messi.shows("document.querySelectorAll('.row').length <= 300", &json!(true));
    // The figure for proto-docs/performance.md: no bound, for machines differ.
    let worst = messi.value("[Math.max(...gaps), Math.max(0, ...tasks), gaps.length]");
    eprintln!("{COUNT} messages: longest gap between frames, longest task (ms), frames: {worst}");
    assert_quiet(&messi);
}
