//! Certificates of nodes that change while the server runs.
//!
//! Owns: what new connections are made with, and the thread that looks after the files.
//! Invariant: files that cannot be used change nothing, also while they are being replaced one after the other; the node
//! goes on with what it has and says so.
//! Knows nothing of connections: those that exist go on with what they were made with.

use crate::{file_stamp::FileStamp, side_thread};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidemill_peer::{AUTHORITY_FILE, CERTIFICATE_FILE, ClusterId, Credentials, CredentialsError, KEY_FILE, NodeId};

/// How often the files are looked at, and how often the cores look whether there is something new.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a node has no credentials to begin with.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("starting the thread that looks after the certificates: {0}")]
    Thread(#[from] io::Error),
}

/// The credentials of a node, for all of its cores.
pub struct Rotation {
    current: RwLock<Credentials>,
    /// Counts the changes.
    version: AtomicU64,
}

/// What the files are made out to, and where they are.
struct Holder {
    cluster: ClusterId,
    node: NodeId,
    folder: PathBuf,
}

impl Rotation {
    /// Reads the files of a folder, and reads them again whenever they change, for as long as the value lives.
    pub fn follow(cluster: ClusterId, node: NodeId, folder: &Path) -> Result<Arc<Rotation>, RotationError> {
        let holder = Holder { cluster, node, folder: folder.to_owned() };
        let seen = holder.stamps();
        let current = RwLock::new(holder.read()?);
        let rotation = Arc::new(Rotation { current, version: AtomicU64::new(0) });
        let watched = Arc::downgrade(&rotation);
        side_thread::spawn("peer-certificates", move || look_after(&holder, &watched, seen))?;
        Ok(rotation)
    }

    pub fn current(&self) -> Credentials {
        // A thread that panicked held the lock for an assignment only.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes since the start.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn replace(&self, credentials: Credentials) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = credentials;
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl Holder {
    fn read(&self) -> Result<Credentials, CredentialsError> {
        Credentials::read(self.cluster, self.node, &self.folder)
    }

    fn stamps(&self) -> [Option<FileStamp>; 3] {
        [AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE].map(|name| FileStamp::of(&self.folder.join(name)))
    }
}

fn look_after(holder: &Holder, watched: &Weak<Rotation>, mut seen: [Option<FileStamp>; 3]) {
    loop {
        std::thread::sleep(LOOK_INTERVAL);
        let Some(rotation) = watched.upgrade() else { return };
        // Before the reading: what changes meanwhile is seen the next time.
        let now = holder.stamps();
        if now == seen {
            continue;
        }
        seen = now;
        let folder = holder.folder.display();
        match holder.read() {
            Ok(credentials) => {
                rotation.replace(credentials);
                tracing::info!(%folder, "new connections between nodes are made with the new certificates");
            }
            Err(error) => tracing::warn!(%folder, %error, "changed certificates cannot be used; the old ones go on"),
        }
    }
}
