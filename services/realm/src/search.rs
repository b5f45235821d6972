//! Searching what a user may read: which messages have all of some words, the newest first.
//!
//! There is no index: a search looks through the entries of the user's own mailbox, or of a group's log, as `history` does, a bounded number at
//! a time, and says where to go on. So it is the same on every broker, costs a send nothing, and is never behind. Owns: what
//! counts as having a word, and the bounds. Must not know: how a client asks.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, Timestamp};
use antar_proto::command::{Before, With};
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::Found;
use antar_proto::{GroupAddress, MessageId, UserName};
use icu_casemap::CaseMapperBorrowed;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use memchr::memmem::Finder;

use crate::mail::Mail;
use crate::mailbox::{APPENDED_TOGETHER, CLOCK_SKEW_US, INBOX_LIMIT, time_of};
use crate::places::{BOX_SENT, BOX_STATUS, box_of, is_of_group};
use crate::realm::Realm;
use crate::shared::Shared;

/// Most entries, and bytes of them, that one search looks at. Where it ends, the next one goes on.
const SCAN_MAX: ReadLimit = ReadLimit { entries_max: 20_000, bytes_max: 32 * 1024 * 1024 };
/// How many it reads at a time.
const SCAN_PAGE: ReadLimit = ReadLimit { entries_max: 500, bytes_max: 1024 * 1024 };
/// After so long it answers with what it has found.
const SCAN_TIME: Duration = Duration::from_secs(2);

/// What a search has found.
#[derive(Debug, Default)]
pub struct SearchResult {
    /// Newest first.
    pub found: Vec<Found>,
    /// Where to go on ([`Before::Place`]): what is older was not looked at.
    pub next: Option<u64>,
}

/// Words to search for.
struct Words(Vec<Finder<'static>>);

impl Words {
    fn new(words: &[&str]) -> Self {
        let folded = words.iter().map(|word| fold(word)).filter(|word| !word.is_empty());
        Self(folded.map(|word| Finder::new(word.as_bytes()).into_owned()).collect())
    }

    /// Whether a text has all of them.
    fn are_in(&self, text: &str) -> bool {
        let text = fold(text);
        !self.0.is_empty() && self.0.iter().all(|word| word.find(text.as_bytes()).is_some())
    }
}

/// A text without the differences that do not count: of case, of width and form, and of accents.
fn fold(text: &str) -> Cow<'_, str> {
    const CASE: CaseMapperBorrowed<'static> = CaseMapperBorrowed::new();
    const PARTS: DecomposingNormalizerBorrowed<'static> = DecomposingNormalizerBorrowed::new_nfkd();
    const WHOLE: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
    if text.is_ascii() {
        return match text.bytes().any(|b| b.is_ascii_uppercase()) {
            true => text.to_ascii_lowercase().into(),
            false => text.into(),
        };
    }
    let parts = PARTS.normalize(text);
    // Only the marks that Latin, Greek and Cyrillic letters have; elsewhere a mark makes another letter.
    let bare: String = parts.chars().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).collect();
    WHOLE.normalize(&CASE.fold_string(&bare)).into_owned().into()
}

impl Realm {
    /// Messages that a user may read and that have all of these words, newest first: of what was written to the user and by the
    /// user, or of a group. `None` if there is no message `before`.
    pub async fn search(
        &self,
        user: &UserName,
        group: Option<&GroupAddress>,
        words: &[&str],
        before: Before,
        limit: usize,
    ) -> Result<Option<SearchResult>, ReadError> {
        self.shared.search(user, group, words, before, limit).await
    }
}

impl Shared {
    /// Messages that a user may read and that have all of these words; `None` if there is no message `before`.
    pub(crate) async fn search(
        &self,
        user: &UserName,
        group: Option<&GroupAddress>,
        words: &[&str],
        before: Before,
        limit: usize,
    ) -> Result<Option<SearchResult>, ReadError> {
        let with = group.map_or(With::All, |group| With::Group(group.clone()));
        let (words, filter) = (Words::new(words), self.said(user, &with));
        let place = match before {
            Before::Newest => None,
            Before::Place(place) => Some(Seq(place)),
            Before::Message(id) => match self.place_of(&filter, id).await? {
                Some(seq) => Some(seq),
                None => return Ok(None),
            },
        };
        let mut seen = HashSet::new();
        if let Some(place) = place {
            // A message to oneself has two copies. What has a copy here was shown before, or is not wanted.
            let from = ReadFrom::After(Seq(place.0.saturating_sub(1)));
            let page = self.broker.read(&filter, from, APPENDED_TOGETHER).await?;
            let mails = page.entries.iter().filter_map(|entry| said(entry));
            seen.extend(mails.map(|mail| (mail.id, mail.from.into_owned())));
        }
        let mut from = place.map_or(ReadFrom::End, ReadFrom::Before);
        let mut result = SearchResult::default();
        let (began, mut scanned, mut bytes, mut shown_bytes) = (Instant::now(), 0, 0, 0);
        loop {
            // Taken for each page, so that several searches share the time.
            let scan = self.scans.acquire().await;
            let page = self.broker.read(&filter, from, SCAN_PAGE).await?;
            for entry in &page.entries {
                (scanned, bytes) = (scanned + 1, bytes + entry.body.len());
                let Some(mail) = said(entry).filter(|mail| words.are_in(&mail.text)) else { continue };
                if !seen.insert((mail.id, mail.from.to_string())) {
                    continue;
                }
                shown_bytes += entry.body.len();
                result.found.push(self.found(user, entry, &mail));
                if result.found.len() == limit || shown_bytes > INBOX_LIMIT.bytes_max {
                    let is_last = page.entries.last().is_some_and(|last| last.seq == entry.seq);
                    result.next = (page.more || !is_last).then_some(entry.seq.0);
                    return Ok(Some(result));
                }
            }
            drop(scan);
            let Some(last) = page.entries.last().filter(|_| page.more) else { return Ok(Some(result)) };
            if scanned >= SCAN_MAX.entries_max || bytes >= SCAN_MAX.bytes_max || began.elapsed() > SCAN_TIME {
                result.next = Some(last.seq.0);
                return Ok(Some(result));
            }
            from = ReadFrom::Before(last.seq);
            tokio::task::yield_now().await;
        }
    }

    fn found(&self, user: &UserName, entry: &Entry, mail: &Mail<'_>) -> Found {
        if is_of_group(&entry.subject) {
            return Found { mailbox: BOX_LOCAL.into(), message: self.message_to(user, mail) };
        }
        let mailbox = box_of(&entry.subject);
        if mailbox != BOX_SENT {
            return Found { mailbox: mailbox.into(), message: self.message_to(user, mail) };
        }
        let is_own = mail.dest == self.places.realm().as_str();
        let mailbox = if is_own { BOX_LOCAL } else { &mail.dest };
        Found { mailbox: mailbox.into(), message: self.message_from(entry, mail) }
    }

    /// Where a message stands in a mailbox, or the newest of its copies, as which it is shown.
    async fn place_of(&self, filter: &Filter, id: MessageId) -> Result<Option<Seq>, ReadError> {
        let _scan = self.scans.acquire().await;
        let is_it = |entry: &Entry| said(entry).is_some_and(|mail| mail.id == id);
        if let Some(time) = time_of(id) {
            let start = ReadFrom::Since(Timestamp(time.0.saturating_sub(CLOCK_SKEW_US)));
            let found = self.scan(filter, start, Some(APPENDED_TOGETHER.entries_max), is_it).await?;
            if let Some(entry) = found.last() {
                return Ok(Some(entry.seq));
            }
        }
        // Whoever made the id has another clock: look at the newest, wherever they are.
        let limit = ReadLimit { entries_max: SCAN_MAX.entries_max, ..APPENDED_TOGETHER };
        let page = self.broker.read(filter, ReadFrom::End, limit).await?;
        Ok(page.entries.iter().find(|entry| is_it(entry)).map(|entry| entry.seq))
    }
}

/// What was said, if an entry of a mailbox is that.
fn said(entry: &Entry) -> Option<Mail<'_>> {
    if box_of(&entry.subject) == BOX_STATUS { None } else { Mail::of(entry) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_forms_of_letters_make_no_difference() {
        for (text, words) in [
            ("Halo BANG Hen", vec!["bang", "HALO"]),
            ("un CAFÉ, s'il vous plaît", vec!["cafe", "PLAIT"]),
            ("un cafe", vec!["café"]),
            ("STRASSE", vec!["straße"]),
            ("ΟΔΥΣΣΕΥΣ", vec!["οδυσσευς"]),
            ("ДОБРЫЙ день", vec!["добрый"]),
            ("ｆｕｌｌ ｗｉｄｔｈ", vec!["full", "width"]),
            ("今日は晴れです", vec!["晴れ"]),
            ("nasi goreng", vec!["goreng", "nas"]),
        ] {
            assert!(Words::new(&words).are_in(text), "{text} {words:?}");
        }
        for (text, words) in
            [("halo bang hen", vec!["halo", "pele"]), ("が", vec!["か"]), ("각", vec!["가"]), ("", vec!["x"])]
        {
            assert!(!Words::new(&words).are_in(text), "{text} {words:?}");
        }
    }
}
