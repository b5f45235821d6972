//! What a user may do, as the server says, against what it needs to, and against what it must not.
//!
//! Asks nothing of anybody: [`Permissions`] is what the server has told of the user. Must not know: what subjects are for.

use serde::Deserialize;

use super::streams::covers;
use crate::Filter;

/// What the server answers of a user. A list that is not there allows everything, or denies nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    publish: Side,
    #[serde(default)]
    subscribe: Side,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Side {
    #[serde(default)]
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Option<Vec<String>>,
}

impl Side {
    /// Whether all that `subject` matches may be used.
    fn allows(&self, subject: &str) -> bool {
        let is_allowed = match self.allow.as_deref() {
            None | Some([]) => true,
            Some(allow) => allow.iter().any(|own| covers(plain(own), subject)),
        };
        is_allowed && !self.deny.iter().flatten().any(|denied| overlap(plain(denied), subject))
    }

    /// Whether some of what `subject` matches may be used.
    fn allows_some(&self, subject: &str) -> bool {
        let is_allowed = match self.allow.as_deref() {
            None | Some([]) => true,
            Some(allow) => allow.iter().any(|own| overlap(plain(own), subject)),
        };
        is_allowed && !self.deny.iter().flatten().any(|denied| covers(plain(denied), subject))
    }
}

impl Permissions {
    pub(super) fn may_publish(&self, subject: &str) -> bool {
        self.publish.allows(subject)
    }

    pub(super) fn may_publish_some(&self, subject: &str) -> bool {
        self.publish.allows_some(subject)
    }

    pub(super) fn may_subscribe(&self, subject: &str) -> bool {
        self.subscribe.allows(subject)
    }
}

/// A subject of a list, without the queue group that may stand behind it.
fn plain(subject: &str) -> &str {
    subject.split_whitespace().next().unwrap_or_default()
}

fn overlap(one: &str, other: &str) -> bool {
    match (Filter::new(one), Filter::new(other)) {
        (Ok(one), Ok(other)) => one.overlaps(&other),
        // Something that is no subject of ours: `$JS.API.>` and the like are.
        _ => covers(one, other) || covers(other, one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(text: &str) -> Permissions {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn who_is_told_nothing_may_everything() {
        let all = permissions(r#"{"publish":{"allow":[]}}"#);
        assert!(all.may_publish("realm.a.>") && all.may_subscribe("_INBOX.>") && all.may_publish_some("x"));
        assert_eq!(permissions("{}"), Permissions::default());
    }

    #[test]
    fn what_is_not_allowed_as_a_whole_is_not_allowed() {
        let some = permissions(
            r#"{"publish":{"allow":["realm.a.>","realm.b.inbox","$JS.API.>"],"deny":["realm.a.mail.x.*"]},
                "subscribe":{"allow":["_INBOX.> q"]}}"#,
        );
        for (subject, all, part) in [
            ("realm.a.outbox.*", true, true),
            ("realm.a.mail.*.*", false, true),
            ("realm.a.mail.x.*", false, false),
            ("realm.b.inbox", true, true),
            ("realm.b.inbox.*", false, false),
            ("realm.b.mail.*.*", false, false),
            ("$JS.API.STREAM.INFO.S", true, true),
            ("$KV.S.>", false, false),
        ] {
            assert_eq!((some.may_publish(subject), some.may_publish_some(subject)), (all, part), "{subject}");
        }
        assert!(some.may_subscribe("_INBOX.antar.>") && !some.may_subscribe("realm.a.live.>"));
    }
}
