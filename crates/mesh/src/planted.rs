//! Bugs that tests plant to see that they are caught. In a normal build there are none.

/// Something a link leaves out or does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The peer is told that we hold one entry more of its logs than we do.
    SkipsOne,
    /// Entries that were sent as they were published are sent again.
    SendsTwice,
    /// What the peer said that it holds is not looked at: every log begins anew.
    IgnoresVector,
    /// The peer is told that we hold its entries when they have merely come.
    HoldsEarly,
    /// The digest of a batch is not compared.
    DigestOff,
    /// The audit never begins.
    NeverAudits,
    /// What a log lacks is noted as asked for, and not asked for.
    DropsFetch,
}

impl Bug {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::SkipsOne,
        Self::SendsTwice,
        Self::IgnoresVector,
        Self::HoldsEarly,
        Self::DigestOff,
        Self::NeverAudits,
        Self::DropsFetch,
    ];
}

history::planted_switch!(Bug);
