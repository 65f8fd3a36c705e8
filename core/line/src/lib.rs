//! tidemill-line
