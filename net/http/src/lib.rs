//! tidemill-http
