//! An entry as a line, for programs or for people.

use antar_broker::Entry;
use antar_realm::traffic::Spot;

use crate::facts::Facts;
use crate::json;
use crate::text;
use crate::time::Clock;

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, with colours or without.
    Text {
        /// With colours.
        colour: bool,
    },
    /// One JSON object.
    Json,
}

/// What is left out or added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Show {
    /// The form.
    pub format: Format,
    /// The words of users.
    pub text: bool,
    /// What stands beside a body.
    pub headers: bool,
}

/// Makes lines.
#[derive(Debug)]
pub struct Writer {
    show: Show,
    realm: String,
    clock: Clock,
}

impl Writer {
    /// For entries of one realm.
    pub fn new(realm: &antar_proto::RealmId, show: Show) -> Self {
        Self { show, realm: realm.to_string(), clock: Clock::default() }
    }

    /// Adds the line of an entry, with its end.
    pub fn write(&mut self, entry: &Entry, spot: &Spot<'_>, facts: &Facts<'_>, into: &mut Vec<u8>) {
        match self.show.format {
            Format::Json => json::write(&self.show, &self.realm, &mut self.clock, entry, spot, facts, into),
            Format::Text { colour } => {
                text::write(&self.show, colour, &self.realm, &mut self.clock, entry, spot, facts, into);
            }
        }
        into.push(b'\n');
    }
}
