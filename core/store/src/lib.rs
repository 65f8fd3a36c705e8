//! tidemill-store
