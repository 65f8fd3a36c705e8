//! The proof of who calls, on one core.
//!
//! Owns: the passwords that were verified lately, as salted digests, and the failures. A slow hash is computed once for
//! each user, password and core; after that the digest spares it.

use super::{
    failures::Failures,
    password,
    proof::is_proved,
    token::{self, TokenError},
};
use sha2::{Digest, Sha256};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
};
use subtle::ConstantTimeEq;
use tidemill_http::{Caller, Credentials, Refusal};
use tidemill_meta::{Meta, PasswordHash};

/// Slow hashes that may wait on a core; each keeps another thread busy for about 60 ms.
const VERIFICATIONS_MAX: usize = 32;

/// What an operator set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccessOptions {
    /// Callers must prove who they are.
    pub is_enabled: bool,
    /// Signs bearer tokens; they are refused while it is empty.
    pub shared_secret: String,
    /// What proxies prove themselves with; none is believed while it is empty.
    pub proxy_secret: String,
}

impl std::fmt::Debug for AccessOptions {
    /// Secrets stay out of logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_secret = !self.shared_secret.is_empty();
        let mut shown = formatter.debug_struct("AccessOptions");
        shown.field("is_enabled", &self.is_enabled).field("has_shared_secret", &has_secret).finish_non_exhaustive()
    }
}

/// Asks callers of one core who they are.
pub struct Gate {
    options: AccessOptions,
    /// Digests of verified passwords, by user.
    verified: RefCell<BTreeMap<String, Verified>>,
    failures: RefCell<Failures>,
    verifying: Cell<usize>,
}

struct Verified {
    /// The hash that it was verified by: another one in the metadata makes this entry worthless.
    password_hash: PasswordHash,
    salt: [u8; 32],
    digest: [u8; 32],
}

/// Runs a slow function off the core.
pub trait Offload {
    fn offload(&self, slow: impl FnOnce() -> bool + Send + 'static) -> impl Future<Output = bool>;
}

impl Gate {
    /// Whether a proxy that knows the secret has said this.
    pub fn is_of_proxy(&self, text: &str, proof: &str) -> bool {
        is_proved(&self.options.proxy_secret, text, proof)
    }

    pub fn new(options: AccessOptions) -> Gate {
        Gate { options, verified: RefCell::default(), failures: RefCell::default(), verifying: Cell::new(0) }
    }

    pub fn is_enabled(&self) -> bool {
        self.options.is_enabled
    }

    /// Who calls. `meta` lends the metadata as they are now.
    ///
    /// # Errors
    /// 401 with the reason; 429 after too many failures, 503 when too many wait to be verified.
    pub async fn authenticate<M: std::ops::Deref<Target = Meta>>(
        &self,
        meta: impl Fn() -> M,
        credentials: Option<Credentials>,
        peer: Option<IpAddr>,
        now_s: i64,
        offload: &impl Offload,
    ) -> Result<Caller, Refusal> {
        if !self.options.is_enabled {
            return Ok(Caller::Anyone);
        }
        if !meta().has_admin() {
            return Ok(Caller::Nobody);
        }
        let unauthorized = |text: String| Refusal::new(401, text);
        match credentials {
            None => Err(unauthorized("unable to parse authentication credentials".into())),
            Some(Credentials::Bearer(token)) => {
                let name = self.user_of_token(&token, now_s).map_err(|text| unauthorized(text.to_string()))?;
                let is_known = meta().user(&name).is_some();
                if is_known { Ok(Caller::User(name.into())) } else { Err(unauthorized("user not found".into())) }
            }
            Some(Credentials::Password { user, .. }) if user.is_empty() => {
                Err(unauthorized("username required".into()))
            }
            Some(Credentials::Password { user, password }) => {
                if self.failures.borrow().is_barred(&user, peer, now_s) {
                    return Err(Refusal::new(429, "too many failed logins, retry later"));
                }
                let hash = meta().user(&user).map(|user| user.password_hash.clone());
                if !self.is_password(&user, password, hash, offload).await? {
                    tracing::info!(user, ?peer, "a login failed");
                    self.failures.borrow_mut().failed(&user, peer, now_s);
                    return Err(unauthorized("authorization failed".into()));
                }
                self.failures.borrow_mut().succeeded(&user, peer);
                Ok(Caller::User(user.into()))
            }
        }
    }

    fn user_of_token(&self, token: &str, now_s: i64) -> Result<String, BearerError> {
        if self.options.shared_secret.is_empty() {
            return Err(BearerError::Disabled);
        }
        Ok(token::claimed_user(token, self.options.shared_secret.as_bytes(), now_s)?)
    }

    async fn is_password(
        &self,
        user: &str,
        password: String,
        hash: Option<PasswordHash>,
        offload: &impl Offload,
    ) -> Result<bool, Refusal> {
        if hash.as_ref().is_some_and(|hash| self.was_verified(user, &password, hash)) {
            return Ok(true);
        }
        if self.verifying.get() >= VERIFICATIONS_MAX {
            return Err(Refusal::new(503, "too many logins at once, retry later"));
        }
        self.verifying.set(self.verifying.get() + 1);
        let (slow_password, slow_hash) = (password.clone(), hash.clone());
        let counted = Countdown(&self.verifying);
        let is_right = offload.offload(move || password::verify(&slow_password, slow_hash.as_ref())).await;
        drop(counted);
        if let (true, Some(hash)) = (is_right, hash) {
            self.remember(user, &password, hash);
        }
        Ok(is_right)
    }

    fn was_verified(&self, user: &str, password: &str, hash: &PasswordHash) -> bool {
        let verified = self.verified.borrow();
        let Some(known) = verified.get(user).filter(|known| known.password_hash == *hash) else { return false };
        digest(&known.salt, password).ct_eq(&known.digest).into()
    }

    fn remember(&self, user: &str, password: &str, password_hash: PasswordHash) {
        let mut salt = [0; 32];
        if let Err(error) = getrandom::fill(&mut salt) {
            tracing::warn!(%error, "no salt: the next login takes the slow way again");
            return;
        }
        let digest = digest(&salt, password);
        self.verified.borrow_mut().insert(user.to_owned(), Verified { password_hash, salt, digest });
    }
}

/// Counts down when it is dropped, also when the caller goes away meanwhile.
struct Countdown<'a>(&'a Cell<usize>);

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[derive(Debug, thiserror::Error)]
enum BearerError {
    #[error("bearer auth disabled")]
    Disabled,
    #[error(transparent)]
    Token(#[from] TokenError),
}

fn digest(salt: &[u8; 32], password: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(password.as_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use tidemill_meta::Command;

    /// Runs in place, and counts.
    #[derive(Default)]
    struct InPlace(Cell<usize>);

    impl Offload for InPlace {
        async fn offload(&self, slow: impl FnOnce() -> bool + Send + 'static) -> bool {
            self.0.set(self.0.get() + 1);
            slow()
        }
    }

    fn meta_with(users: &[(&str, &str, bool)]) -> Meta {
        let mut meta = Meta::default();
        for (name, password, is_admin) in users {
            let password_hash = password::hash(password).unwrap();
            meta.apply(Command::CreateUser { name: (*name).into(), password_hash, is_admin: *is_admin }).unwrap();
        }
        meta
    }

    fn gate(shared_secret: &str) -> Gate {
        Gate::new(AccessOptions { is_enabled: true, shared_secret: shared_secret.into(), ..AccessOptions::default() })
    }

    fn ask(
        gate: &Gate,
        meta: &Meta,
        credentials: Option<Credentials>,
        slow: &InPlace,
    ) -> Result<Caller, (u16, String)> {
        let asked = gate.authenticate(|| meta, credentials, None, 1_000, slow);
        block_on(asked).map_err(|refusal| (refusal.status, refusal.text))
    }

    fn login(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    fn refused(text: &str) -> Result<Caller, (u16, String)> {
        Err((401, text.to_owned()))
    }

    #[test]
    fn passwords_are_verified_slowly_once_and_a_new_one_replaces_the_old() {
        let (gate, slow) = (gate(""), InPlace::default());
        let mut meta = meta_with(&[("root", "secret", true)]);
        for _ in 0..3 {
            assert_eq!(ask(&gate, &meta, login("root", "secret"), &slow), Ok(Caller::User("root".into())));
        }
        assert_eq!(slow.0.get(), 1);
        assert_eq!(ask(&gate, &meta, login("root", "Secret"), &slow), refused("authorization failed"));
        assert_eq!(ask(&gate, &meta, login("nobody", "secret"), &slow), refused("authorization failed"));
        // An unknown user takes as long as a wrong password.
        assert_eq!(slow.0.get(), 3);
        let password_hash = password::hash("new").unwrap();
        meta.apply(Command::SetPassword { user: "root".into(), password_hash }).unwrap();
        assert_eq!(ask(&gate, &meta, login("root", "secret"), &slow), refused("authorization failed"));
        assert_eq!(ask(&gate, &meta, login("root", "new"), &slow), Ok(Caller::User("root".into())));
    }

    #[test]
    fn what_proves_nothing_has_its_text() {
        let (gate, slow) = (gate(""), InPlace::default());
        assert_eq!(ask(&gate, &Meta::default(), None, &slow), Ok(Caller::Nobody));
        let meta = meta_with(&[("root", "secret", true)]);
        assert_eq!(ask(&gate, &meta, None, &slow), refused("unable to parse authentication credentials"));
        assert_eq!(ask(&gate, &meta, login("", "x"), &slow), refused("username required"));
        let bearer = Some(Credentials::Bearer("x.y.z".into()));
        assert_eq!(ask(&gate, &meta, bearer, &slow), refused("bearer auth disabled"));
        let off = Gate::new(AccessOptions::default());
        assert_eq!(ask(&off, &meta, login("root", "wrong"), &slow), Ok(Caller::Anyone));
    }

    #[test]
    fn guessing_is_stopped_before_it_is_hashed() {
        let (gate, slow) = (gate(""), InPlace::default());
        let meta = meta_with(&[("root", "secret", true)]);
        let mut statuses = (0..12).map(|_| ask(&gate, &meta, login("root", "x"), &slow).unwrap_err().0);
        assert!(statuses.by_ref().take(10).all(|status| status == 401));
        assert!(statuses.all(|status| status == 429));
        assert_eq!(slow.0.get(), 10);
    }

    #[test]
    fn secrets_stay_out_of_debug_texts() {
        let options =
            AccessOptions { is_enabled: true, shared_secret: "topsecret".into(), proxy_secret: "topsecret".into() };
        assert!(!format!("{options:?}").contains("topsecret"));
    }
}
