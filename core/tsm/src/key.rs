//! The keys of an index: `<series key>#!~#<field name>` (`tsm-format`, section 2).
//!
//! Upstream splits a key at the *first* separator, so a field name may hold one, but of a series whose key text holds
//! one upstream takes the rest for the field's name. [`join`] therefore refuses such a series: a key that it builds is
//! split by everybody into what it was built from.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

/// Stands between series key and field name.
pub const SEPARATOR: &[u8] = b"#!~#";

/// Most bytes of a key: its length is a u16.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Series key and field name give no key that splits into the same two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key of a series and a field takes {bytes} bytes, more than {KEY_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the series key holds the separator of field names, #!~#, at byte {offset}")]
    Separator { offset: usize },
}

/// Appends the key of field `field` (raw) of the series `series_key` (canonical, escaped).
///
/// # Errors
/// If the key is too long, or the first separator in it is not the one between the two; `out` is then as before.
pub fn join(series_key: &[u8], field: &[u8], out: &mut Vec<u8>) -> Result<(), KeyError> {
    let bytes = series_key.len() + SEPARATOR.len() + field.len();
    if bytes > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes });
    }
    let start = out.len();
    out.extend_from_slice(series_key);
    out.extend_from_slice(SEPARATOR);
    // A series key that ends in `#!~` makes a separator with the first byte of the one that follows it, so the search
    // covers both.
    match memchr::memmem::find(out.get(start..).unwrap_or_default(), SEPARATOR) {
        Some(offset) if offset < series_key.len() => {
            out.truncate(start);
            Err(KeyError::Separator { offset })
        }
        _ => {
            out.extend_from_slice(field);
            Ok(())
        }
    }
}

/// Series key and field name of a key, if it holds a separator.
pub fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (series_key, rest) = key.split_at_checked(memchr::memmem::find(key, SEPARATOR)?)?;
    Some((series_key, rest.get(SEPARATOR.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_joined_key_splits_into_its_parts(series_key in "[#!~a]{0,12}", field in "[#!~a]{0,12}") {
            let mut key = Vec::new();
            if join(series_key.as_bytes(), field.as_bytes(), &mut key).is_ok() {
                prop_assert_eq!(split(&key), Some((series_key.as_bytes(), field.as_bytes())));
            } else {
                prop_assert!(key.is_empty());
                prop_assert!(series_key.contains("#!~"));
            }
        }
    }

    #[test]
    fn separators_belong_to_the_field() {
        assert_eq!(split(b"m,t=a#!~#f#!~#g"), Some((&b"m,t=a"[..], &b"f#!~#g"[..])));
        assert_eq!(split(b"m,t=a"), None);
        assert_eq!(join(b"m,t=#!~#", b"f", &mut Vec::new()), Err(KeyError::Separator { offset: 4 }));
        assert_eq!(join(b"m,t=#!~", b"f", &mut Vec::new()), Err(KeyError::Separator { offset: 4 }));
    }

    #[test]
    fn keys_are_at_most_64_kib() {
        assert_eq!(join(&vec![b'a'; KEY_BYTES_MAX - 5], b"f", &mut Vec::new()), Ok(()));
        let error = join(&vec![b'a'; KEY_BYTES_MAX - 4], b"f", &mut Vec::new());
        assert_eq!(error, Err(KeyError::TooLong { bytes: KEY_BYTES_MAX + 1 }));
    }
}
