//! tidemill-meta
