//! tidemill-log
