//! How values are packed into columns: ids, headers, lists of subjects, runs of sequences. Knows no SQL.

use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::{EntryId, Headers};

/// Number of a subject in this file; dense, from 0.
pub(super) type SubjectId = u32;

/// A value that could not be unpacked: the file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a column of the file cannot be unpacked")]
pub(super) struct Unpackable;

/// An id as a column. An id of 32 lower-case hexadecimal digits, as UUIDs are, takes 16 bytes; others stay text.
pub(super) enum PackedId<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> PackedId<'a> {
    pub(super) fn of(id: &'a EntryId) -> Self {
        let text = id.as_str();
        let Ok(digits) = <&[u8; 32]>::try_from(text.as_bytes()) else {
            return Self::Text(text);
        };
        let mut packed = [0; 16];
        for (byte, pair) in packed.iter_mut().zip(digits.as_chunks::<2>().0) {
            let (Some(high), Some(low)) = (hex(pair[0]), hex(pair[1])) else {
                return Self::Text(text);
            };
            *byte = high << 4 | low;
        }
        Self::Uuid(packed)
    }

    pub(super) fn unpack(value: ValueRef<'_>) -> Result<EntryId, Unpackable> {
        match value {
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| Unpackable)?;
                EntryId::new(text).ok_or(Unpackable)
            }
            ValueRef::Blob(bytes) if bytes.len() == 16 => {
                let mut text = String::with_capacity(32);
                for byte in bytes {
                    text.push(DIGITS[usize::from(byte >> 4)]);
                    text.push(DIGITS[usize::from(byte & 15)]);
                }
                EntryId::new(text).ok_or(Unpackable)
            }
            _ => Err(Unpackable),
        }
    }
}

const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl rusqlite::ToSql for PackedId<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Uuid(bytes) => ValueRef::Blob(bytes),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The subjects of a row as a column: a number when there is one, four bytes for each when there are several.
pub(super) enum PackedSubjects {
    One(SubjectId),
    Many(Vec<u8>),
}

impl PackedSubjects {
    pub(super) fn of(subjects: &[SubjectId]) -> Self {
        match subjects {
            [one] => Self::One(*one),
            many => Self::Many(many.iter().flat_map(|id| id.to_le_bytes()).collect()),
        }
    }

    pub(super) fn unpack(value: ValueRef<'_>, into: &mut Vec<SubjectId>) -> Result<(), Unpackable> {
        into.clear();
        match value {
            ValueRef::Integer(one) => into.push(SubjectId::try_from(one).map_err(|_| Unpackable)?),
            ValueRef::Blob(bytes) if bytes.len().is_multiple_of(4) => {
                into.extend(bytes.as_chunks::<4>().0.iter().map(|four| SubjectId::from_le_bytes(*four)));
            }
            _ => return Err(Unpackable),
        }
        Ok(())
    }
}

impl rusqlite::ToSql for PackedSubjects {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::One(id) => ToSqlOutput::from(i64::from(*id)),
            Self::Many(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// Packs headers: for each name and value its length in two bytes, then its text. No headers are no bytes.
pub(super) fn pack_headers(headers: &Headers, into: &mut Vec<u8>) {
    into.clear();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        let length = u16::try_from(text.len()).expect("headers are refused above 4 KiB");
        into.extend_from_slice(&length.to_le_bytes());
        into.extend_from_slice(text.as_bytes());
    }
}

pub(super) fn unpack_headers(mut bytes: &[u8]) -> Result<Headers, Unpackable> {
    let mut next = || -> Result<Option<String>, Unpackable> {
        let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
            return if bytes.is_empty() { Ok(None) } else { Err(Unpackable) };
        };
        let (text, rest) =
            rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(Unpackable)?;
        bytes = rest;
        String::from_utf8(text.to_vec()).map(Some).map_err(|_| Unpackable)
    };
    let mut headers = Headers::new();
    while let Some(name) = next()? {
        headers.push((name, next()?.ok_or(Unpackable)?));
    }
    Ok(headers)
}

/// Packs growing sequences: the first stands in its own column, of the others the distances, seven bits a byte.
pub(super) fn pack_run(seqs: &[u64]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(seqs.len() * 2);
    for pair in seqs.windows(2) {
        let mut distance = pair[1] - pair[0];
        while distance >= 128 {
            packed.push((distance & 127) as u8 | 128);
            distance >>= 7;
        }
        packed.push(distance as u8);
    }
    packed
}

/// Unpacks what [`pack_run`] packed, `first` included, onto the end of `into`.
pub(super) fn unpack_run(first: u64, packed: &[u8], into: &mut Vec<u64>) {
    into.push(first);
    let (mut at, mut distance, mut shift) = (first, 0_u64, 0);
    for byte in packed {
        distance |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            at = at.saturating_add(distance);
            into.push(at);
            (distance, shift) = (0, 0);
        } else {
            shift = (shift + 7).min(63);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through_sql(value: &impl rusqlite::ToSql, check: impl Fn(ValueRef<'_>)) {
        match value.to_sql().unwrap() {
            ToSqlOutput::Borrowed(value) => check(value),
            ToSqlOutput::Owned(value) => check(ValueRef::from(&value)),
            _ => panic!("neither borrowed nor owned"),
        }
    }

    proptest! {
        #[test]
        fn ids_survive_packing(text in "[!-~]{1,160}|[0-9a-f]{32}|[0-9A-F]{32}") {
            let id = EntryId::new(text).unwrap();
            through_sql(&PackedId::of(&id), |value| assert_eq!(PackedId::unpack(value).unwrap(), id));
        }

        #[test]
        fn subjects_survive_packing(ids in prop::collection::vec(any::<u32>(), 1..50)) {
            through_sql(&PackedSubjects::of(&ids), |value| {
                let mut back = Vec::new();
                PackedSubjects::unpack(value, &mut back).unwrap();
                assert_eq!(back, ids);
            });
        }

        #[test]
        fn headers_survive_packing(headers in prop::collection::vec((".{0,20}", ".{0,20}"), 0..5)) {
            let mut packed = Vec::new();
            pack_headers(&headers, &mut packed);
            prop_assert_eq!(unpack_headers(&packed).unwrap(), headers);
        }

        #[test]
        fn runs_survive_packing(set in prop::collection::btree_set(0..u64::MAX / 2, 1..200)) {
            let seqs: Vec<u64> = set.into_iter().collect();
            let mut back = Vec::new();
            unpack_run(seqs[0], &pack_run(&seqs), &mut back);
            prop_assert_eq!(back, seqs);
        }

        #[test]
        fn rubbish_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack_headers(&bytes);
            let mut ids = Vec::new();
            let _ = PackedSubjects::unpack(ValueRef::Blob(&bytes), &mut ids);
            let _ = PackedId::unpack(ValueRef::Blob(&bytes));
            let _ = PackedId::unpack(ValueRef::Text(&bytes));
            unpack_run(u64::MAX, &bytes, &mut Vec::new());
        }
    }
}
