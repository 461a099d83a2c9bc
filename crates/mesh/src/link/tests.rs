//! Two links back to back over a small network, and one link against a peer that is played by hand.

mod chaos;
mod flow;
mod forgotten;
mod hostile;
mod pieces;
mod rig;
