//! Proofs between the cluster's own processes: a text signed with a secret that both were given.
//!
//! Invariant: without a secret nothing is proved.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The proof of a text, in hexadecimal digits.
pub fn proof(secret: &str, text: &str) -> String {
    keyed(secret, text).finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether somebody who knows the secret has said the text. The time that this takes does not tell how much was right.
pub fn is_proved(secret: &str, text: &str, proof: &str) -> bool {
    let digits: Vec<u8> = proof
        .as_bytes()
        .chunks(2)
        .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    !secret.is_empty() && keyed(secret, text).verify_slice(&digits).is_ok()
}

fn keyed(secret: &str, text: &str) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    // Not to be mistaken for what else is signed with a secret.
    mac.update(b"tidemill claim\n");
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_proves_a_text() {
        let good = proof("s", "text");
        assert!(is_proved("s", "text", &good));
        for (secret, text, proof) in [
            ("t", "text", good.as_str()),
            ("s", "other", &good),
            ("s", "text", ""),
            ("s", "text", &good[2..]),
            ("s", "text", "zz"),
            ("", "text", &super::proof("", "text")),
            ("s", "text", "+1\u{e9}"),
        ] {
            assert!(!is_proved(secret, text, proof), "{secret} {text} {proof}");
        }
    }
}
