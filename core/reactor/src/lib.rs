//! tidemill-reactor
