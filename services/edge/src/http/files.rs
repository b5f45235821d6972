//! `POST /files` and `GET /files/ID`: files as bytes, for programs and pages that speak HTTP.
//!
//! Owns: what a request looks like, the status of each answer, and that a file is in memory part by part only. Must not know:
//! who may have a file, or how much is too much. A token comes in a header only: what stands in a path ends up in logs.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antar_proto::command::FileTo;
use antar_proto::file::{FileInfo, Part, is_sha256};
use antar_proto::reply::{Failure, Ok as OkReply};
use antar_proto::{ErrorCode, MessageId, UserName};
use antar_realm::{FileError, FileReader, NewFile, PART_BYTES_MAX, TooMuch};
use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::timeout;

use super::listener::Peer;
use super::{Served, answer};
use crate::commands::{FILE_TIME, Refusal};
use crate::files::{send_to, stored_reply};

/// Files on their way at once, in either direction. Each takes up to two parts of memory.
const TRANSFERS_MAX: usize = 64;
/// Those of one user.
const TRANSFERS_PER_USER_MAX: usize = 8;
/// When to come again if there are so many.
const RETRY_AFTER_S: u64 = 2;
/// How long the bytes of one part may take to come.
const PART_TIME: Duration = Duration::from_secs(120);
/// What a browser may show as it is: pictures, in which no program can be.
const SHOWN: [&str; 4] = ["image/gif", "image/jpeg", "image/png", "image/webp"];
/// Whatever a browser makes of the bytes, it may do nothing.
const POLICY: &str = "sandbox; default-src 'none'";

/// Why nothing comes of a request.
enum Refused {
    /// With the status of its code.
    Code(Refusal),
    /// As good as the request, but for how it was made.
    Request(StatusCode, &'static str),
    /// Too much in a minute, or too many at once.
    Later(ErrorCode, u64, String),
}

impl<R: Into<Refusal>> From<R> for Refused {
    fn from(refusal: R) -> Self {
        Self::Code(refusal.into())
    }
}

impl Refused {
    fn answer(self) -> Response {
        let later = match &self {
            Self::Later(_, seconds, _) => Some(*seconds),
            _ => None,
        };
        let (status, code, detail) = match self {
            Self::Code(Refusal { code, detail, .. }) => (status(code), code, detail),
            Self::Request(status, why) => (status, ErrorCode::BadRequest, why.to_owned()),
            Self::Later(code, _, why) => (StatusCode::TOO_MANY_REQUESTS, code, why),
        };
        let failure = Failure::new(None, code).detail(&detail);
        let failure = match later {
            Some(seconds) => failure.retry_after_s(seconds),
            None => failure,
        };
        let mut response = answer(status, &failure);
        let headers = response.headers_mut();
        if let Some(seconds) = later {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The status that says most of what a code does.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::NotAuthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::NoSuchFile => StatusCode::NOT_FOUND,
        ErrorCode::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::FileQuota => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::FileIncomplete | ErrorCode::FileMismatch => StatusCode::CONFLICT,
        ErrorCode::NotAMember => StatusCode::FORBIDDEN,
        ErrorCode::NoSuchUser
        | ErrorCode::NoSuchRealm
        | ErrorCode::NoSuchGroup
        | ErrorCode::RealmBlocked
        | ErrorCode::MailboxFull => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Whose token the header has.
async fn user(served: &Served, headers: &HeaderMap) -> Result<UserName, Refused> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.split_once(' '));
    let token =
        token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let token = token.ok_or(ErrorCode::NotAuthorized)?;
    let session = match served.edge.realm.session(token) {
        Some(session) => Some(session),
        None => served.edge.realm.session_anywhere(token).await?,
    };
    Ok(session.ok_or(ErrorCode::NotAuthorized)?.1)
}

/// Who has files on their way, and how many.
#[derive(Default)]
pub(super) struct Transfers(Mutex<HashMap<UserName, usize>>);

/// A place among the files on their way.
struct Transfer {
    all: Arc<Transfers>,
    user: UserName,
}

impl Transfers {
    fn users(&self) -> MutexGuard<'_, HashMap<UserName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut users = self.all.users();
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
        }
        users.retain(|_, count| *count > 0);
    }
}

/// A place for one more file of a user.
fn place(served: &Served, user: &UserName) -> Result<Transfer, Refused> {
    let all = served.transfers.clone();
    let mut users = all.users();
    let (count, of_user) = (users.values().sum::<usize>(), users.get(user).copied().unwrap_or(0));
    if count >= TRANSFERS_MAX || of_user >= TRANSFERS_PER_USER_MAX {
        let why = "too many files are on their way";
        return Err(Refused::Later(ErrorCode::SlowDown, RETRY_AFTER_S, why.into()));
    }
    users.insert(user.clone(), of_user + 1);
    drop(users);
    Ok(Transfer { all, user: user.clone() })
}

/// What the query of an upload says.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    to: FileTo,
    name: String,
    id: Option<MessageId>,
    sha256: Option<String>,
}

impl Asked {
    fn read(query: &str) -> Result<Self, &'static str> {
        let (mut to, mut seen) = (None, Vec::new());
        let (mut name, mut id, mut sha256) = (String::new(), None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&key) {
                return Err("each parameter stands once");
            }
            match &*key {
                "to" => to = Some(FileTo::several(&value)?),
                "name" => name = value.into_owned(),
                "id" => id = Some(value.parse().map_err(|_| "id= takes a UUID")?),
                "sha256" if is_sha256(&value) => sha256 = Some(value.into_owned()),
                "sha256" => return Err("sha256= takes 64 hexadecimal digits"),
                _ => {
                    return Err(
                        "there are to=, name=, id= and sha256= only; a token goes into the header Authorization",
                    );
                }
            }
            seen.push(key);
        }
        match to {
            Some(to) if !name.is_empty() => Ok(Self { to, name, id, sha256 }),
            _ => Err("to= and name= are needed"),
        }
    }
}

pub(super) async fn upload(
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    match take(&served, peer.address.ip(), request).await {
        Ok(stored) => answer(StatusCode::OK, &OkReply::new(None, stored)),
        Err(refused) => refused.answer(),
    }
}

/// Takes a file part by part, each stored before the next is read. What is refused is so before any byte of it is read.
async fn take(served: &Served, from: IpAddr, request: Request) -> Result<Value, Refused> {
    let bad = |why| Refused::Request(StatusCode::BAD_REQUEST, why);
    let asked = Asked::read(request.uri().query().unwrap_or_default()).map_err(bad)?;
    let user = user(served, request.headers()).await?;
    let has_length = request.headers().contains_key(header::CONTENT_LENGTH);
    let body = request.into_body();
    let Some(size) = body.size_hint().exact().filter(|_| has_length) else {
        return Err(Refused::Request(StatusCode::LENGTH_REQUIRED, "Content-Length is needed"));
    };
    let _place = place(served, &user)?;
    let realm = &served.edge.realm;
    let parts = u32::try_from(size.div_ceil(PART_BYTES_MAX))
        .map_err(|_| FileError::TooLarge(realm.config().file_bytes_max))?;
    let Asked { to, name, id, sha256 } = &asked;
    let id = id.unwrap_or_else(MessageId::fresh);
    let part = Part { number: 1, parts: parts.max(1), size };
    let first = NewFile { id, to: send_to(to)?, name, part, sha256: sha256.as_deref() };
    let refused = || bad("the bytes cannot be divided");
    if let Err(TooMuch { of, wait }) = realm.take_share(&user, Some(from), name.len()) {
        let why = format!("this {of} has sent as much as it may in a minute");
        return Err(Refused::Later(ErrorCode::RateLimited, wait.as_secs() + 1, why));
    }
    in_time(realm.begin_file(&user, first)).await?;
    let mut bytes = Incoming { stream: body.into_data_stream(), rest: Bytes::new() };
    for number in 1..=first.part.parts {
        let part = Part { number, ..first.part };
        let length = part.bytes().and_then(|length| usize::try_from(length).ok()).ok_or_else(refused)?;
        let broken = |_| Refused::Request(StatusCode::REQUEST_TIMEOUT, "the bytes took too long");
        let part_bytes = timeout(PART_TIME, bytes.take(length)).await.map_err(broken)?;
        let part_bytes = part_bytes.ok_or_else(|| bad("the bytes ended too early"))?;
        let new = NewFile { part, ..first };
        let stored = in_time(realm.put_part(&user, new, part_bytes)).await?;
        if number == first.part.parts {
            return Ok(stored_reply(&new, &stored));
        }
    }
    Err(refused())
}

/// What the realm says, unless it takes too long. Cancel-safe: whatever was begun is found when it is sent again.
async fn in_time<T>(work: impl Future<Output = Result<T, FileError>>) -> Result<T, Refused> {
    match timeout(FILE_TIME, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(ErrorCode::Unavailable.into()),
    }
}

/// The bytes of a request, as they come.
struct Incoming {
    stream: BodyDataStream,
    /// What came and belongs to the next part.
    rest: Bytes,
}

impl Incoming {
    /// The next so many bytes; `None` if they do not come.
    async fn take(&mut self, length: usize) -> Option<Bytes> {
        let mut part = Vec::with_capacity(length);
        loop {
            let wanted = (length - part.len()).min(self.rest.len());
            part.extend_from_slice(&self.rest.split_to(wanted));
            if part.len() == length {
                return Some(part.into());
            }
            self.rest = self.stream.next().await?.ok()?;
        }
    }
}

pub(super) async fn download(
    State(served): State<Served>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match give(&served, &id, &uri, &headers).await {
        Ok(response) => response,
        Err(refused) => refused.answer(),
    }
}

async fn give(served: &Served, id: &str, uri: &Uri, headers: &HeaderMap) -> Result<Response, Refused> {
    if uri.query().is_some() {
        let why = "there are no parameters; a token goes into the header Authorization";
        return Err(Refused::Request(StatusCode::BAD_REQUEST, why));
    }
    let user = user(served, headers).await?;
    let id: MessageId = id.parse().map_err(|_| FileError::NoSuchFile)?;
    let place = place(served, &user)?;
    let mut reader = in_time(served.edge.realm.read_file(&user, id)).await?;
    // Read before anything is said: what is not there at all is no file that breaks off.
    let first = in_time(reader.next()).await?;
    let head = head(reader.file());
    let body = Body::from_stream(parts(reader, first, place));
    Ok((head, body).into_response())
}

/// The parts, each read when the one before has been taken; a connection whose file cannot be read on is broken off.
fn parts(
    reader: FileReader,
    first: Option<Bytes>,
    place: Transfer,
) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((reader, first, place), async |(mut reader, first, place)| {
        let bytes = match first {
            Some(bytes) => Some(bytes),
            None => timeout(FILE_TIME, reader.next()).await?.map_err(io::Error::other)?,
        };
        Ok(bytes.map(|bytes| (bytes, (reader, None, place))))
    })
}

/// What is said of a file before its bytes.
fn head(file: &FileInfo) -> HeaderMap {
    let shown = SHOWN.into_iter().find(|shown| file.media == *shown);
    let how = if shown.is_some() { "inline" } else { "attachment" };
    let fixed = |value| HeaderValue::from_static(value);
    let named = HeaderValue::try_from(disposition(how, &file.name)).unwrap_or_else(|_| fixed("attachment"));
    HeaderMap::from_iter([
        (header::CONTENT_LENGTH, HeaderValue::from(file.size)),
        (header::CONTENT_TYPE, fixed(shown.unwrap_or("application/octet-stream"))),
        (header::CONTENT_DISPOSITION, named),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::CONTENT_SECURITY_POLICY, fixed(POLICY)),
        (header::CACHE_CONTROL, fixed("no-store")),
    ])
}

/// RFC 6266: the name in ASCII for old clients, and in UTF-8 for all others.
fn disposition(how: &str, name: &str) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() && !r#""\%"#.contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    // Of a query it has the `+` for a space and the `*`, which RFC 8187 does not.
    let encoded = encoded.replace('+', "%20").replace('*', "%2A");
    format!("{how}; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_sent_to_whom_or_what_is_wrong() {
        let asked = Asked::read("to=messi,pele%40realm2&name=foto+%E2%98%83.png").unwrap();
        assert_eq!(Ok(asked.to), FileTo::several("messi,pele@realm2"));
        let of_group = Asked::read("to=%23tim&name=x").unwrap();
        assert_eq!(of_group.to, FileTo::Group("tim".parse().ok()));
        assert_eq!(asked.name, "foto \u{2603}.png");
        for bad in [
            "",
            "to=messi",
            "name=x",
            "to=&name=x",
            "to=messi&to=pele&name=x",
            "to=messi&name=x&id=7",
            "to=messi&name=x&sha256=ab",
            "to=messi&name=x&token=y",
        ] {
            assert!(Asked::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_stays_within_its_header() {
        for (name, value) in [
            ("a b.txt", "inline; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
            ("caf\u{e9}+.txt", "inline; filename=\"caf_+.txt\"; filename*=UTF-8''caf%C3%A9%2B.txt"),
            ("\"\\\r\n;%'", "inline; filename=\"____;_'\"; filename*=UTF-8''%22%5C%0D%0A%3B%25%27"),
        ] {
            assert_eq!(disposition("inline", name), value);
        }
    }

    #[test]
    fn only_pictures_are_shown() {
        let file = |media: &str| FileInfo {
            id: MessageId::fresh(),
            name: "x".into(),
            media: media.into(),
            size: 1,
            sha256: String::new(),
        };
        assert_eq!(head(&file("image/png"))[header::CONTENT_TYPE], "image/png");
        for media in ["image/svg+xml", "text/html", "application/pdf", "text/plain"] {
            let head = head(&file(media));
            assert_eq!(head[header::CONTENT_TYPE], "application/octet-stream", "{media}");
            assert!(head[header::CONTENT_DISPOSITION].to_str().unwrap().starts_with("attachment;"));
        }
    }
}
