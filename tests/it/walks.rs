//! The walks of the two reports, step by step, with the bytes of their own clients: a space before CR LF, two spaces
//! before the text (the clients put each word after a space of its own), `addrealm` without a token.

use serde_json::{Value, json};

use super::BROKER;
use crate::harness::{Conn, Server, eventually, ok, text, texts};

/// One of the reports' clients: remembers its token and asks as they do.
pub(crate) struct ReportClient {
    conn: Conn,
    token: String,
}

impl ReportClient {
    pub(crate) fn auth(server: &Server, realm: &str, user: &str) -> Self {
        let mut conn = server.connect(realm);
        let reply = conn.ask_like_the_reports(format!("auth {user} surabaya \r\n").as_bytes());
        let token = text(&ok(reply), "tokenid").to_owned();
        Self { conn, token }
    }

    /// `T` stands for the token.
    fn ask(&mut self, line: &str) -> Value {
        let bytes = line.replacen(" T ", &format!(" {} ", self.token), 1);
        self.conn.ask_like_the_reports(bytes.as_bytes())
    }

    /// Asks until the list of messages is not empty: between realms a message may take a moment.
    fn ask_until_there_is_mail(&mut self, line: &str) -> Vec<Value> {
        eventually("a message between realms arrives", || {
            let reply = ok(self.ask(line));
            let messages = reply["messages"].as_array().expect("a list").clone();
            (!messages.is_empty()).then_some(messages)
        })
    }
}

/// What the reports' clients look at in a message.
fn shown(message: &Value) -> Value {
    json!({ "msg_from": message["msg_from"], "msg_to": message["msg_to"], "msg": message["msg"] })
}

fn shown_all(messages: &Value) -> Vec<Value> {
    messages.as_array().expect("a list of messages").iter().map(shown).collect()
}

#[test]
fn the_walk_of_the_older_report_comes_out_as_it_did_there() {
    let server = BROKER.demo();
    let mut messi = ReportClient::auth(&server, "realm1", "messi");
    let mut lineker = ReportClient::auth(&server, "realm1", "lineker");
    let mut henderson = ReportClient::auth(&server, "realm1", "henderson");

    let sent = lineker.ask("send T messi  Selamat Pagi Messi \r\n");
    assert_eq!((&sent["status"], &sent["message"]), (&json!("OK"), &json!("Message Sent")));
    let sent = henderson.ask("send T messi  Belajar Bareng Yuk :) \r\n");
    assert_eq!((&sent["status"], &sent["message"]), (&json!("OK"), &json!("Message Sent")));

    let list = ok(messi.ask("list T \r\n"));
    let names = text(&list, "messages");
    assert!(names.ends_with(','), "each name is followed by a comma: {names}");
    let mut names: Vec<_> = names.trim_end_matches(',').split(',').collect();
    names.sort_unstable();
    assert_eq!(names, ["henderson", "lineker", "messi"]);

    let inbox = ok(messi.ask("inbox T \r\n"));
    assert_eq!(inbox["messages"].as_object().expect("by sender").len(), 2);
    let from_henderson =
        json!({ "msg_from": "Jordan Henderson", "msg_to": "Lionel Messi", "msg": "Belajar Bareng Yuk :)" });
    assert_eq!(shown_all(&inbox["messages"]["henderson"]), [from_henderson]);
    let from_lineker =
        json!({ "msg_from": "Gary Lineker", "msg_to": "Lionel Messi", "msg": "Selamat Pagi Messi" });
    assert_eq!(shown_all(&inbox["messages"]["lineker"]), [from_lineker]);
    assert_eq!(ok(messi.ask("inbox T \r\n"))["messages"], json!({}), "reading marks read");

    let bye = messi.ask("logout T \r\n");
    assert_eq!(ok(bye)["messages"], "logout telah berhasil, Terimakasih telah menggunakan Chat :)");
    let again = messi.ask("logout T \r\n");
    assert_eq!(again["status"], "ERROR");
    assert_eq!(again["message"], "WARNING! ERROR silahkan login terlebih dahulu");
    let names = ok(henderson.ask("list T \r\n"));
    assert!(!text(&names, "messages").contains("messi"), "{names}");
}

#[test]
fn the_walk_of_the_newer_report_comes_out_as_it_did_there() {
    let server = BROKER.demo();
    walk_of_the_newer_report([
        ReportClient::auth(&server, "realm1", "messi"),
        ReportClient::auth(&server, "realm2", "lineker"),
        ReportClient::auth(&server, "realm1", "henderson"),
    ]);
}

/// messi and henderson are of realm1, lineker is of realm2.
pub(crate) fn walk_of_the_newer_report([mut messi, mut lineker, mut henderson]: [ReportClient; 3]) {
    // Group chat on one server.
    assert_eq!(
        ok(messi.ask("sendgroup T messi,henderson  halo temen satu grup \r\n"))["message"],
        "Message Sent"
    );
    for (client, to) in [(&mut messi, "Lionel Messi"), (&mut henderson, "Jordan Henderson")] {
        let inbox = ok(client.ask("getinbox T \r\n"));
        let wanted = json!({ "msg_from": "Lionel Messi", "msg_to": to, "msg": "halo temen satu grup" });
        assert_eq!(shown_all(&inbox["messages"]["messi"]), [wanted]);
    }

    // Private chat.
    assert_eq!(ok(messi.ask("sendprivate T henderson  halo bang hen \r\n"))["message"], "Message Sent");
    let inbox = ok(henderson.ask("getinbox T \r\n"));
    let wanted = json!({ "msg_from": "Lionel Messi", "msg_to": "Jordan Henderson", "msg": "halo bang hen" });
    assert_eq!(shown_all(&inbox["messages"]["messi"]), [wanted]);

    // Group chat between realms.
    ok(messi.ask("addrealm realm2 172.16.16.102 4002 \r\n"));
    let sent = ok(messi.ask("sendgrouprealm T realm2 henderson,lineker  halo realm sebelah \r\n"));
    assert_eq!(sent["message"], "Message Sent to Group in Realm");
    for (client, to) in [(&mut lineker, "Gary Lineker"), (&mut henderson, "Jordan Henderson")] {
        let messages = client.ask_until_there_is_mail("getrealminbox T realm2 \r\n");
        let wanted = json!({ "msg_from": "Lionel Messi", "msg_to": to, "msg": "halo realm sebelah" });
        assert_eq!(messages.iter().map(shown).collect::<Vec<_>>(), [wanted]);
        assert_eq!(messages[0]["from"], "messi@realm1");
    }

    // Private chat between realms.
    ok(lineker.ask("addrealm realm1 172.16.16.101 4001 \r\n"));
    let sent = ok(lineker.ask("sendprivaterealm T realm1 messi  angkara messi \r\n"));
    assert_eq!(sent["message"], "Message Sent to Realm");
    let messages = messi.ask_until_there_is_mail("getrealminbox T realm1 \r\n");
    let wanted = json!({ "msg_from": "Gary Lineker", "msg_to": "Lionel Messi", "msg": "angkara messi" });
    assert_eq!(messages.iter().map(shown).collect::<Vec<_>>(), [wanted]);
    assert_eq!(messages[0]["from"], "lineker@realm2");
}

#[test]
fn the_reports_errors_have_the_reports_words() {
    let server = BROKER.demo();
    let mut conn = server.connect("realm1");
    for (line, code, message) in [
        ("auth pele surabaya \r\n", "no-such-account", "User Tidak Tersedia, Silahkan Coba Lagi"),
        ("auth messi jakarta \r\n", "bad-password", "Password yang Anda Masukkan Salah, Silahkan Coba Lagi"),
        ("send  messi  halo \r\n", "bad-request", "--Protocol Tidak Benar"),
        ("send T messi  halo \r\n", "not-authorized", "Session Tidak Ditemukan"),
        ("inbox T \r\n", "not-authorized", "Session Tidak Ditemukan"),
        ("list T \r\n", "not-authorized", "Session Tidak Ditemukan"),
        ("logout T \r\n", "not-authorized", "WARNING! ERROR silahkan login terlebih dahulu"),
        ("getrealminbox T realm2 \r\n", "not-authorized", "Session Tidak Ditemukan"),
        ("halo \r\n", "unknown-command", "**Protocol Tidak Benar"),
        ("auth messi \r\n", "bad-request", "--Protocol Tidak Benar"),
    ] {
        let reply = conn.ask_like_the_reports(line.as_bytes());
        assert_eq!(reply["status"], "ERROR", "{line}: {reply}");
        assert_eq!(reply["code"], code, "{line}");
        assert_eq!(reply["message"], message, "{line}");
    }
}

#[test]
fn text_beyond_ascii_survives_a_client_that_decodes_64_bytes_at_a_time() {
    let server = BROKER.demo();
    let mut messi = ReportClient::auth(&server, "realm1", "messi");
    let mut henderson = ReportClient::auth(&server, "realm1", "henderson");
    let said = "café 😀 ünïcödé — selamat pagi ".repeat(20);
    ok(messi.ask(&format!("sendprivate T henderson  {said} \r\n")));
    let inbox = ok(henderson.ask("inbox T \r\n"));
    let messages = inbox["messages"]["messi"].as_array().expect("a list");
    assert_eq!(texts(messages), [said.trim()]);
}
