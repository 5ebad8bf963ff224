//! Two sessions against each other on virtual time.

mod properties;
mod rules;
mod sim;
