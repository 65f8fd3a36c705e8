//! Salted hashes of passwords: bcrypt, as upstream stores them.

use tidemill_meta::PasswordHash;

/// Upstream's cost: about 60 ms of a core, which is why callers run this off the executor.
const COST: u32 = 10;
/// Bcrypt looks at no more.
const BYTES_MAX: usize = 72;
/// Of a password that nobody has: it is verified where there is no such user, so that the time tells nothing.
const NOBODYS_HASH: &str = "$2b$10$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy";

/// Why there is no hash of a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("password length exceeds {BYTES_MAX} bytes")]
    TooLong,
    #[error("password cannot be hashed: {0}")]
    Failed(String),
}

/// The hash of a password with a salt of its own. Slow on purpose.
pub fn hash(password: &str) -> Result<PasswordHash, PasswordError> {
    if password.len() > BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    bcrypt::hash(password, COST).map(PasswordHash).map_err(|error| PasswordError::Failed(error.to_string()))
}

/// Whether the hash was made of this password; of nobody's without a hash. Slow on purpose.
pub fn verify(password: &str, hash: Option<&PasswordHash>) -> bool {
    let text = hash.map_or(NOBODYS_HASH, |hash| &hash.0);
    // A longer one was never hashed; its beginning must not be taken for it.
    let matches = bcrypt::verify(password, text).unwrap_or(false) && password.len() <= BYTES_MAX;
    matches && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_and_two_hashes_differ() {
        let (first, second) = (hash("sécret").unwrap(), hash("sécret").unwrap());
        assert_ne!(first, second);
        assert!(verify("sécret", Some(&first)) && verify("sécret", Some(&second)));
        assert!(!verify("secret", Some(&first)) && !verify("", Some(&first)) && !verify("sécret", None));
        assert!(!verify("x", Some(&PasswordHash("no hash".into()))));
    }

    #[test]
    fn only_what_bcrypt_looks_at_is_a_password() {
        let longest = "p".repeat(BYTES_MAX);
        let hashed = hash(&longest).unwrap();
        assert!(verify(&longest, Some(&hashed)));
        assert!(!verify(&format!("{longest}x"), Some(&hashed)));
        assert_eq!(hash(&format!("{longest}x")), Err(PasswordError::TooLong));
    }

    #[test]
    fn nobodys_hash_takes_as_long_as_a_real_one() {
        assert!(bcrypt::verify("x", NOBODYS_HASH).is_ok(), "it must be a well-formed hash");
        assert!(NOBODYS_HASH.contains(&format!("${COST}$")));
    }
}
