//! tidemill-query
