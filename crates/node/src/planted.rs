//! Bugs that tests plant to see that they are caught. In a normal build there are none.

/// Something a shard leaves out or does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Entries are given to links before they are durable.
    PublishesEarly,
    /// The mark of a log is in a batch before that of the entries that it covers.
    MarkFirst,
    /// Trimming a log writes a mark that is older than what is on its way.
    MarkGoesBack,
    /// Of two changes in one slot, the one that came first stays.
    FirstWins,
    /// A change whose dependencies are not here yet is not kept.
    DropsWaiting,
    /// A change that came from another region gets a place in our own log, too.
    NumbersAgain,
    /// Entries are let go of before every region holds them.
    TrimsEarly,
    /// What is dead is not spoken of in repair.
    ForgetsDead,
    /// What does not fit into one message of a repair is announced and never sent.
    ForgetsTheRest,
    /// Logs of processes that are no more are forgotten before every region holds them.
    ForgetsEarly,
    /// They are never forgotten.
    NeverForgets,
    /// R1: what comes behind a message that waits for the archive is taken in and answered before it.
    Overtakes,
    /// R11: whoever lacks changes that are not kept one by one is sent the others.
    OmitsTrimmed,
    /// What only the CRDT can judge is let in without asking it.
    SkipsSlowLane,
}

impl Bug {
    /// Those that show without any other region.
    pub const WITHIN: [Self; 3] = [Self::Overtakes, Self::OmitsTrimmed, Self::SkipsSlowLane];

    /// Those that show between regions.
    pub const BETWEEN: [Self; 11] = [
        Self::PublishesEarly,
        Self::MarkFirst,
        Self::MarkGoesBack,
        Self::FirstWins,
        Self::DropsWaiting,
        Self::NumbersAgain,
        Self::TrimsEarly,
        Self::ForgetsDead,
        Self::ForgetsTheRest,
        Self::ForgetsEarly,
        Self::NeverForgets,
    ];
}

history::planted_switch!(Bug);
