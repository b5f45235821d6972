//! What was found, and how it is shown.

use antar_broker::{Flaw, FlawKind, Severity};
use antar_proto::RealmId;
use serde::Serialize;

use crate::exit::Outcome;
use crate::say;

/// One finding.
#[derive(Debug, Clone)]
struct Finding {
    flaw: Flaw,
    /// Of which realm, if it is about one.
    realm: Option<RealmId>,
}

/// All of them, in the order in which they were found; none twice.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    realms: Vec<RealmId>,
}

/// As a script sees one.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    severity: &'a str,
    realm: Option<&'a RealmId>,
    what: String,
    means: &'a str,
    r#do: String,
}

/// As a script sees all.
#[derive(Debug, Serialize)]
struct ShownAll<'a> {
    broker: &'a str,
    realms: &'a [RealmId],
    findings: Vec<Shown<'a>>,
    errors: usize,
    warnings: usize,
    notes: usize,
}

impl Report {
    /// That a realm is looked at.
    pub(super) fn begin(&mut self, realm: &RealmId) {
        self.realms.push(realm.clone());
    }

    /// Adds a finding. What two realms have in common, because they share a broker, is told once and of none of them.
    pub(super) fn add(&mut self, realm: Option<&RealmId>, flaw: Flaw) {
        let same = self.findings.iter_mut().find(|known| known.flaw == flaw);
        match same {
            Some(known) if known.realm.as_ref() != realm => known.realm = None,
            Some(_) => {}
            None => self.findings.push(Finding { flaw, realm: realm.cloned() }),
        }
    }

    /// Adds one of a kind, found at `name`.
    pub(super) fn say(
        &mut self,
        realm: Option<&RealmId>,
        kind: &'static FlawKind,
        name: &str,
        what: impl Into<String>,
    ) {
        self.add(realm, Flaw::new(kind, name, what));
    }

    /// The ids of what was found.
    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<&'static str> {
        self.findings.iter().map(|finding| finding.flaw.kind.id).collect()
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.flaw.severity == severity).count()
    }

    /// Whether somebody has to do something.
    pub(super) fn is_healthy(&self) -> bool {
        self.count(Severity::Error) + self.count(Severity::Warning) == 0
    }

    /// The worst first.
    fn sorted(&self) -> Vec<&Finding> {
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_key(|finding| finding.flaw.severity);
        sorted
    }

    /// One JSON object.
    pub(super) fn json(&self, broker: &str) -> Outcome {
        let findings = self.sorted().into_iter().map(|Finding { flaw, realm }| Shown {
            id: flaw.kind.id,
            severity: flaw.severity.as_str(),
            realm: realm.as_ref(),
            what: flaw.what.clone(),
            means: flaw.kind.means,
            r#do: flaw.remedy.clone(),
        });
        say::json(&ShownAll {
            broker,
            realms: &self.realms,
            findings: findings.collect(),
            errors: self.count(Severity::Error),
            warnings: self.count(Severity::Warning),
            notes: self.count(Severity::Note),
        })
    }

    /// For people.
    pub(super) fn text(&self, broker: &str) -> Outcome {
        for Finding { flaw, realm } in self.sorted() {
            let realm = realm.as_ref().map_or(String::new(), |realm| format!(" ({realm})"));
            // Names of consumers, and what servers and other realms say, are others' words.
            say::line(say::harmless(&format!(
                "{:<8} {}{realm}: {}",
                flaw.severity.as_str(),
                flaw.kind.id,
                flaw.what
            )))?;
            say::line(format!("         {}", flaw.kind.means))?;
            say::line(say::harmless(&format!("         do: {}", flaw.remedy)))?;
        }
        let realms: Vec<&str> = self.realms.iter().map(RealmId::as_str).collect();
        let of = if realms.is_empty() { String::new() } else { format!(", {}", realms.join(", ")) };
        let counted = |severity: Severity| {
            let (count, word) = (self.count(severity), severity.as_str());
            format!("{count} {word}{}", if count == 1 { "" } else { "s" })
        };
        let counts = [Severity::Error, Severity::Warning, Severity::Note].map(counted).join(", ");
        say::line(format!("{broker}{of}: {counts}"))
    }
}
