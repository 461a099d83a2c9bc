//! The world: nodes, network, disks, clients, faults, checkers, one seed.
