//! Files: what a message says of one, how a request names it, and which names are harmless. Their bytes are nobody's business here.

use serde::{Deserialize, Serialize};

use crate::names::MessageId;

/// Longest name of a file, in bytes: what every file system takes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Most parts of one file.
pub const PARTS_MAX: u32 = 65_536;
/// What a file is called of whose name nothing is left.
const NAMELESS: &str = "file";

/// A file, as a message and its reader's client name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its id: that of the message that brings it.
    pub id: MessageId,
    /// A name that is safe to be shown and to be a file's: see [`safe_name`].
    pub name: String,
    /// Its media type, found in its first bytes.
    #[serde(rename = "type")]
    pub media: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of all of them, in lower case hexadecimal.
    pub sha256: String,
}

/// What a request says of the file that it carries, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upload<'a> {
    /// Which part of how many, and how large the whole is; none: the request carries the whole.
    pub part: Option<Part>,
    /// The file's id; parts of one file have the same.
    pub id: Option<MessageId>,
    /// What the whole has to be.
    pub sha256: Option<&'a str>,
}

/// A part of a file. All parts but the last are equally large: see [`Part::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub parts: u32,
    /// Bytes of the whole.
    pub size: u64,
}

impl Part {
    /// How many bytes this part has: a `parts`th of the whole, rounded up, and the last one the rest. `None` if so many bytes
    /// cannot be divided so.
    pub fn bytes(&self) -> Option<u64> {
        let each = self.size.div_ceil(u64::from(self.parts.max(1)));
        let before = each.checked_mul(u64::from(self.parts.checked_sub(1)?))?;
        let last = self.size.checked_sub(before).filter(|&last| last > 0)?;
        let is_one = self.number >= 1 && self.number <= self.parts;
        is_one.then_some(if self.number == self.parts { last } else { each })
    }
}

/// Reads `part=K/N size=BYTES id=ID sha256=HEX`, in any order.
pub(crate) fn upload(options: &str) -> Result<Upload<'_>, &'static str> {
    const PART: &str = "part=K/N takes K from 1 to N and N up to 65536";
    let (mut upload, mut of, mut size) = (Upload::default(), None, None);
    for word in options.split(' ').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some(("part", value)) => {
                let (number, parts) = value.split_once('/').ok_or(PART)?;
                let (number, parts): (u32, u32) = number.parse().ok().zip(parts.parse().ok()).ok_or(PART)?;
                of = Some((number, parts)).filter(|_| (1..=parts).contains(&number) && parts <= PARTS_MAX);
                of.ok_or(PART)?;
            }
            Some(("size", value)) => size = Some(value.parse().map_err(|_| "size= takes a number of bytes")?),
            Some(("id", value)) => upload.id = Some(value.parse().map_err(|_| "id= takes a UUID")?),
            Some(("sha256", value)) if is_sha256(value) => upload.sha256 = Some(value),
            Some(("sha256", _)) => return Err("sha256= takes 64 hexadecimal digits"),
            _ => return Err("after BASE64 stand part=K/N, size=, id= and sha256= only"),
        }
    }
    upload.part = match (of, size) {
        (None, None) => None,
        (Some((number, parts)), Some(size)) if upload.id.is_some() => Some(Part { number, parts, size }),
        _ => return Err("part=K/N, size= and id= go together"),
    };
    Ok(upload)
}

/// Reads `part=K` of `getfile`.
pub(crate) fn part_asked_for(word: &str) -> Result<u32, &'static str> {
    let number = word.strip_prefix("part=").and_then(|number| number.parse().ok());
    number.filter(|&number| number >= 1).ok_or("part= takes the number of a part, from 1")
}

/// Whether this is a SHA-256, in hexadecimal.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A name made of any text that can be shown and can be a file's: no path, no control character, nothing that turns the
/// direction of writing or cannot be seen, nothing that a shell or another system's files give a meaning to, no dots or spaces
/// at the ends, and at most [`FILE_NAME_BYTES_MAX`] bytes, of which the ending is kept.
pub fn safe_name(text: &str) -> String {
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = last.chars().filter(|&c| !c.is_control() && !is_invisible(c));
    let plain: String = kept.map(|c| if r#"<>:"|?*$`"#.contains(c) { '_' } else { c }).collect();
    let plain = plain.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let name = shortened(plain);
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

/// Characters that take no room or change how others are shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn shortened(name: &str) -> String {
    if name.len() <= FILE_NAME_BYTES_MAX {
        return name.to_owned();
    }
    const ENDING_BYTES_MAX: usize = 16;
    let ending = name.rfind('.').map_or("", |at| &name[at..]);
    let ending = if ending.len() <= ENDING_BYTES_MAX { ending } else { "" };
    let mut end = FILE_NAME_BYTES_MAX - ending.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_harmless_ones() {
        for (text, name) in [
            ("cat.png", "cat.png"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\x\\a b.txt", "a b.txt"),
            ("..", "file"),
            ("", "file"),
            ("\u{202e}gnp.exe", "gnp.exe"),
            (".bashrc", "bashrc"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie_ x"),
            ("a\0b\u{1b}[2J", "ab[2J"),
            ("$(rm *)\"`.sh", "_(rm _)__.sh"),
            ("  kopi \u{2603}.txt ", "kopi \u{2603}.txt"),
        ] {
            assert_eq!(safe_name(text), name, "{text:?}");
        }
        let long = safe_name(&format!("{}.tar.gz", "\u{e9}".repeat(300)));
        assert!(long.len() <= FILE_NAME_BYTES_MAX && long.ends_with(".gz"), "{long}");
    }

    #[test]
    fn a_request_says_which_part_it_carries_or_what_is_wrong() {
        let id = "0192d4d5-0000-7000-8000-000000000000";
        assert_eq!(upload(""), Ok(Upload::default()));
        let line = format!("size=100  part=2/3 id={id}");
        assert_eq!(upload(&line).unwrap().part, Some(Part { number: 2, parts: 3, size: 100 }));
        for bad in [
            "part=0/3 size=9 id=x",
            "part=4/3",
            "part=1/65537",
            "part=1",
            "part=1/2",
            "part=1/2 size=9",
            "size=9",
            "size=-1",
            "size=99999999999999999999",
            "id=7",
            "sha256=ab",
            "colour=blue",
            "AAAA",
        ] {
            assert!(upload(bad).is_err(), "{bad}");
        }
        assert!(part_asked_for("part=0").is_err() && part_asked_for("2").is_err());
        assert_eq!(part_asked_for("part=7"), Ok(7));
    }

    #[test]
    fn parts_are_equal_but_for_the_last() {
        let bytes = |number, parts, size| Part { number, parts, size }.bytes();
        assert_eq!([1, 2, 3].map(|number| bytes(number, 3, 100)), [Some(34), Some(34), Some(32)]);
        assert_eq!(bytes(1, 1, 7), Some(7));
        // Nothing is left for the last of four: 2 + 2 + 1.
        assert_eq!(bytes(1, 4, 5), None);
        for none in
            [bytes(0, 3, 9), bytes(4, 3, 9), bytes(1, 0, 9), bytes(1, 1, 0), bytes(9, 65_536, u64::MAX)]
        {
            assert!(none.is_none_or(|bytes| bytes > 0));
        }
    }

    proptest! {
        #[test]
        fn no_name_is_a_path_or_hides_anything(text in any::<String>()) {
            let name = safe_name(&text);
            prop_assert!(!name.is_empty() && name.len() <= FILE_NAME_BYTES_MAX);
            prop_assert!(!name.contains(['/', '\\', '\0']) && name != "." && name != "..");
            prop_assert!(!name.chars().any(|c| c.is_control() || is_invisible(c)));
        }

        #[test]
        fn the_parts_of_a_file_are_the_file(size in 1..10_000_000_u64, parts in 1..2_000_u32) {
            let bytes: Option<Vec<u64>> =
                (1..=parts).map(|number| Part { number, parts, size }.bytes()).collect();
            if let Some(bytes) = bytes {
                prop_assert_eq!(bytes.iter().sum::<u64>(), size);
            }
        }
    }
}
