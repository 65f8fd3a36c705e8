//! tidemill-influxql
