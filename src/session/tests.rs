//! One session against another, or against a hand that breaks rules, on virtual time.

mod hand;
mod properties;
mod rules;
mod sim;
