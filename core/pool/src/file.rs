//! Files by their hash.

use rkyv::{Archive, Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// BLAKE3 of all bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct FileId(pub [u8; 32]);

/// The name of a file is 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name of a file in the pool: 64 hexadecimal digits in lower case")]
pub struct BadFileId;

impl fmt::Display for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl FromStr for FileId {
    type Err = BadFileId;

    fn from_str(text: &str) -> Result<FileId, BadFileId> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(BadFileId),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(BadFileId);
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(FileId(bytes))
    }
}

/// Of a set of files: equal for equal sets, whatever their order. Names are hashes already, so that their exclusive or
/// tells sets apart that came to differ by accident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FilesDigest {
    count: u64,
    names: [u8; 32],
}

impl FilesDigest {
    pub fn of<'a>(files: impl IntoIterator<Item = &'a FileId>) -> FilesDigest {
        let mut digest = FilesDigest::default();
        files.into_iter().for_each(|file| digest.add(file));
        digest
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The file was not among them.
    pub fn add(&mut self, file: &FileId) {
        self.count = self.count.wrapping_add(1);
        self.toggle(file);
    }

    /// The file was among them.
    pub fn remove(&mut self, file: &FileId) {
        self.count = self.count.wrapping_sub(1);
        self.toggle(file);
    }

    fn toggle(&mut self, file: &FileId) {
        self.names.iter_mut().zip(file.0).for_each(|(sum, byte)| *sum ^= byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_nothing_else_is() {
        let file = FileId(std::array::from_fn(|at| (at * 37) as u8));
        let text = file.to_string();
        assert_eq!(text.parse(), Ok(file));
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"é".repeat(32), &"g".repeat(64)] {
            assert_eq!(wrong.parse::<FileId>(), Err(BadFileId), "{wrong}");
        }
    }

    #[test]
    fn a_digest_is_that_of_a_set() {
        let files: Vec<FileId> = (0..9).map(|byte| FileId([byte; 32])).collect();
        let mut digest = FilesDigest::of(&files);
        assert_eq!(digest, FilesDigest::of(files.iter().rev()));
        digest.remove(&files[3]);
        assert_ne!(digest, FilesDigest::of(&files));
        assert_eq!((digest.count(), digest), (8, FilesDigest::of(files.iter().filter(|file| **file != files[3]))));
    }
}
