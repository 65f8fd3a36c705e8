//! Bearer tokens: JSON Web Tokens (RFC 7519) signed with the server's secret.
//!
//! Only HMAC signatures are taken, so that no token can choose to go unsigned or to be checked as something else. The
//! texts are those of the library that upstream uses.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use base64::{DecodeError, Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac, digest::KeyInit};
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};

/// A token longer than this is not looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token contains an invalid number of segments")]
    Segments,
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("{0}")]
    Json(String),
    #[error("signing method (alg) is unspecified.")]
    NoAlgorithm,
    #[error("signing method (alg) is unavailable.")]
    UnknownAlgorithm,
    #[error("unexpected signing method: {0}")]
    Algorithm(String),
    #[error("signature is invalid")]
    Signature,
    #[error("Token is expired")]
    Expired,
    #[error("Token used before issued")]
    BeforeIssued,
    #[error("Token is not valid yet")]
    NotYet,
    #[error("token expiration required")]
    NoExpiration,
    #[error("username in token must be a string")]
    NoUsername,
    #[error("token must contain a username")]
    EmptyUsername,
    #[error("token is too long")]
    TooLong,
}

/// Algorithms that the library knows and a secret cannot check.
const OTHER_ALGORITHMS: [&str; 10] =
    ["none", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

/// The user that a token speaks for, if its signature and its times hold.
pub fn claimed_user(token: &str, secret: &[u8], now_s: i64) -> Result<String, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Segments)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Segments)?;
    if claims.contains('.') {
        return Err(TokenError::Segments);
    }
    let (header, claims) = (object(header)?, object(claims)?);
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(TokenError::NoAlgorithm)?;
    let verify: fn(&[u8], &str, &[u8]) -> bool = match algorithm {
        "HS256" => is_signed::<Hmac<Sha256>>,
        "HS384" => is_signed::<Hmac<Sha384>>,
        "HS512" => is_signed::<Hmac<Sha512>>,
        other if OTHER_ALGORITHMS.contains(&other) => return Err(TokenError::Algorithm(other.to_owned())),
        _ => return Err(TokenError::UnknownAlgorithm),
    };
    let signature = decode(signature)?;
    if !verify(secret, signed, &signature) {
        return Err(TokenError::Signature);
    }
    check_times(&claims, now_s)?;
    match claims.get("exp").and_then(Value::as_f64) {
        Some(expiration) if expiration > 0.0 => {}
        _ => return Err(TokenError::NoExpiration),
    }
    match claims.get("username").and_then(Value::as_str) {
        None => Err(TokenError::NoUsername),
        Some("") => Err(TokenError::EmptyUsername),
        Some(user) => Ok(user.to_owned()),
    }
}

/// What has ended, has not begun, or was made later than now. The last one that fails is told.
fn check_times(claims: &Map<String, Value>, now_s: i64) -> Result<(), TokenError> {
    let time = |name| claims.get(name).and_then(Value::as_f64).map(|time| time as i64);
    if time("nbf").is_some_and(|start| now_s < start) {
        return Err(TokenError::NotYet);
    }
    if time("iat").is_some_and(|issued| now_s < issued) {
        return Err(TokenError::BeforeIssued);
    }
    if time("exp").is_some_and(|end| now_s > end) {
        return Err(TokenError::Expired);
    }
    Ok(())
}

fn is_signed<M: Mac + KeyInit>(secret: &[u8], signed: &str, signature: &[u8]) -> bool {
    // A key of any length will do for an HMAC.
    let Ok(mac) = <M as Mac>::new_from_slice(secret) else { return false };
    // In constant time.
    mac.chain_update(signed.as_bytes()).verify_slice(signature).is_ok()
}

fn object(segment: &str) -> Result<Map<String, Value>, TokenError> {
    serde_json::from_slice(&decode(segment)?).map_err(|error| TokenError::Json(error.to_string()))
}

fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD.decode(segment).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) | DecodeError::InvalidLength(at) => {
            TokenError::Base64(at)
        }
        DecodeError::InvalidPadding => TokenError::Base64(segment.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"s3cret";

    fn signed_with<M: Mac + KeyInit>(header: &str, claims: &str, secret: &[u8]) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let mac = <M as Mac>::new_from_slice(secret).unwrap().chain_update(signed.as_bytes());
        format!("{signed}.{}", encode(&mac.finalize().into_bytes()))
    }

    fn token(claims: &str) -> String {
        signed_with::<Hmac<Sha256>>(r#"{"alg":"HS256","typ":"JWT"}"#, claims, SECRET)
    }

    fn outcome(token: &str) -> Result<String, String> {
        claimed_user(token, SECRET, 1_000).map_err(|error| error.to_string())
    }

    #[test]
    fn a_signed_token_in_its_time_speaks_for_its_user() {
        let claims = r#"{"username":"u","exp":1000}"#;
        assert_eq!(outcome(&token(claims)), Ok("u".into()));
        let longer = signed_with::<Hmac<Sha384>>(r#"{"alg":"HS384"}"#, claims, SECRET);
        assert_eq!(outcome(&longer), Ok("u".into()));
        let longest = signed_with::<Hmac<Sha512>>(r#"{"alg":"HS512"}"#, claims, SECRET);
        assert_eq!(outcome(&longest), Ok("u".into()));
    }

    #[test]
    fn claims_are_checked() {
        for (claims, text) in [
            (r#"{"username":"u","exp":999}"#, "Token is expired"),
            (r#"{"username":"u"}"#, "token expiration required"),
            (r#"{"username":"u","exp":"2000"}"#, "token expiration required"),
            (r#"{"username":"u","exp":0}"#, "Token is expired"),
            (r#"{"exp":2000}"#, "username in token must be a string"),
            (r#"{"username":7,"exp":2000}"#, "username in token must be a string"),
            (r#"{"username":"","exp":2000}"#, "token must contain a username"),
            (r#"{"username":"u","exp":2000,"nbf":1500}"#, "Token is not valid yet"),
            (r#"{"username":"u","exp":2000,"iat":1500}"#, "Token used before issued"),
        ] {
            assert_eq!(outcome(&token(claims)), Err(text.to_owned()), "{claims}");
        }
    }

    #[test]
    fn no_token_chooses_how_it_is_checked() {
        let claims = r#"{"username":"u","exp":2000}"#;
        let of = |header: &str| signed_with::<Hmac<Sha256>>(header, claims, SECRET);
        for (header, text) in [
            (r#"{"alg":"none"}"#, "unexpected signing method: none"),
            (r#"{"alg":"RS256"}"#, "unexpected signing method: RS256"),
            (r#"{"alg":"HS1"}"#, "signing method (alg) is unavailable."),
            (r#"{"typ":"JWT"}"#, "signing method (alg) is unspecified."),
            (r#"{"alg":"HS512"}"#, "signature is invalid"),
        ] {
            assert_eq!(outcome(&of(header)), Err(text.to_owned()), "{header}");
        }
        let other_secret = signed_with::<Hmac<Sha256>>(r#"{"alg":"HS256"}"#, claims, b"");
        assert_eq!(outcome(&other_secret), Err("signature is invalid".into()));
        let good = token(claims);
        let (signed, _) = good.rsplit_once('.').unwrap();
        assert_eq!(outcome(&format!("{signed}.")), Err("signature is invalid".into()));
    }

    #[test]
    fn whatever_comes_is_an_error_and_every_flipped_bit_is_noticed() {
        for (token, text) in [
            ("", "token contains an invalid number of segments"),
            ("a.b", "token contains an invalid number of segments"),
            ("a.b.c.d", "token contains an invalid number of segments"),
            ("!.b.c", "illegal base64 data at input byte 0"),
        ] {
            assert_eq!(outcome(token), Err(text.to_owned()), "{token}");
        }
        assert_eq!(outcome(&"a".repeat(TOKEN_BYTES_MAX + 1)), Err("token is too long".into()));
        let good = token(r#"{"username":"u","exp":2000}"#).into_bytes();
        for bit in 0..good.len() * 8 {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(damaged) = String::from_utf8(damaged) else { continue };
            assert!(outcome(&damaged).is_err(), "bit {bit}");
        }
    }
}
