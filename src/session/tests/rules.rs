//! One test for each sentence of the specification that chance alone does not pin down.

mod close;
mod features;
mod flow;
mod handshake;
mod hostile;
mod items;
mod legacy;
mod records;
mod standing;
mod timing;
