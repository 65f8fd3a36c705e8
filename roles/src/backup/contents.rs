//! The list of a backup's files.
//!
//! A text that people can read: a line that says what it is, a line a file (BLAKE3 hash, size, path), and a checksum of
//! them all. It is written last and read first.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::{collections::BTreeSet, fmt::Write};

/// Name of the list in its folder.
pub const FILE: &str = "contents";
const FIRST_LINE: &str = "tidemill backup, version 1";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the backup's folder.
    pub path: String,
    pub size: u64,
    pub hash: [u8; 32],
}

/// All files, the list itself left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub entries: Vec<Entry>,
}

/// Why a text is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    #[error("not the list of a backup, or damaged")]
    Damaged,
    #[error("\"{0}\" is no path of a file in a backup")]
    Path(String),
}

impl Contents {
    /// Bytes of all files.
    pub fn byte_count(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    pub fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for entry in &self.entries {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{} {} {}", hex(&entry.hash), entry.size, entry.path);
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc32c {crc:08x}");
        text
    }

    /// The checked inverse of [`Contents::text`].
    pub fn parse(text: &str) -> Result<Contents, ContentsError> {
        let mut contents = Contents::default();
        let mut known = BTreeSet::new();
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(ContentsError::Damaged);
        }
        for line in lines {
            if line.starts_with("crc32c ") {
                break;
            }
            let entry = parse_line(line).ok_or(ContentsError::Damaged)?;
            if !is_plain(&entry.path) || !known.insert(entry.path.clone()) {
                return Err(ContentsError::Path(entry.path));
            }
            contents.entries.push(entry);
        }
        if contents.text() == text { Ok(contents) } else { Err(ContentsError::Damaged) }
    }
}

fn parse_line(line: &str) -> Option<Entry> {
    let (hash, rest) = line.split_once(' ')?;
    let (size, path) = rest.split_once(' ')?;
    Some(Entry { path: path.to_owned(), size: size.parse().ok()?, hash: unhex(hash)? })
}

/// Whether a path stays below the folder that it is put behind.
pub fn is_plain(path: &str) -> bool {
    let is_plain_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
    };
    !path.is_empty() && path.split('/').all(is_plain_part)
}

pub fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let entry = |path: &str, size| Entry { path: path.into(), size, hash: [size as u8; 32] };
        Contents { entries: vec![entry("identity", 90), entry("partitions/003/g7/000000012-000000001.tsm", 4096)] }
    }

    #[test]
    fn every_change_of_a_list_is_noticed() {
        let text = contents().text();
        assert_eq!(Contents::parse(&text), Ok(contents()));
        assert_eq!(contents().byte_count(), 4186);
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(damaged) = String::from_utf8(damaged) else { continue };
            assert!(Contents::parse(&damaged).is_err(), "bit {bit}");
        }
        for cut in 0..text.len() {
            assert!(Contents::parse(&text[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn no_path_leaves_the_folder() {
        for path in ["../x", "/etc/passwd", "a//b", "a/../b", "", "a/", "a b", "a\\b", ".", "a\nb"] {
            assert!(!is_plain(path), "{path}");
            let entry = Entry { path: path.into(), size: 1, hash: [0; 32] };
            assert!(Contents::parse(&Contents { entries: vec![entry] }.text()).is_err(), "{path}");
        }
        assert!(is_plain("partitions/000/g1/000000012-000000001.tsm"));
        let twice = Contents { entries: vec![contents().entries[0].clone(); 2] };
        assert_eq!(Contents::parse(&twice.text()), Err(ContentsError::Path("identity".into())));
    }
}
