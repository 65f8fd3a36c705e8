//! tidemill-tsm
