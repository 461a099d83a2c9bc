//! Bugs that tests plant to see that they are caught. In a normal build there are none.

/// A rule left out or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// R1: a message is answered before what came with it is durable.
    AnswersEarly,
    /// R1: heads are in no order.
    HeadsUnsorted,
    /// R2: a message is answered whether there is news or not.
    AlwaysAnswer,
    /// R2: nobody hears that what it handed in is durable.
    NeverAcknowledges,
    /// R2: that it is durable is as urgent as news, so that each upload is acknowledged by itself.
    AcknowledgesAtOnce,
    /// R3: the first message is answered only when there is something to say.
    NoFirstReply,
    /// R3: heads are told of before their changes can follow.
    NamesWhatIsNotDurable,
    /// R4: what a peer says it has is believed although its heads are known.
    BelievesHave,
    /// R4: changes are sent on top of common ground that is unknown here.
    SendsOnUnknownGround,
    /// R4: heads that are unknown are answered with a reset.
    SendsReset,
    /// R5: our heads are presumed to be common ground in every message.
    PresumeAlways,
    /// R6: after a reset the peer is trusted as before.
    TrustAfterReset,
    /// R6: a reset is answered without the changes.
    ResetResendsNothing,
    /// R6: the missing flags of a reset are taken to say that the peer is not read-only.
    ResetTellsReadOnly,
    /// R7: a peer whose heads went back is not opened again.
    NeverGoBack,
    /// R9: what was sent once is never sent again.
    IgnoreRepeatedNeed,
    /// R10: a read-only peer is sent changes.
    SendsToReaders,
    /// R10: what was held back stays back when the peer is not read-only any more.
    ReadersStayBehind,
}

impl Bug {
    /// Every one of them.
    pub const ALL: [Self; 18] = [
        Self::AnswersEarly,
        Self::HeadsUnsorted,
        Self::AlwaysAnswer,
        Self::NeverAcknowledges,
        Self::AcknowledgesAtOnce,
        Self::NoFirstReply,
        Self::NamesWhatIsNotDurable,
        Self::BelievesHave,
        Self::SendsOnUnknownGround,
        Self::SendsReset,
        Self::PresumeAlways,
        Self::TrustAfterReset,
        Self::ResetResendsNothing,
        Self::ResetTellsReadOnly,
        Self::NeverGoBack,
        Self::IgnoreRepeatedNeed,
        Self::SendsToReaders,
        Self::ReadersStayBehind,
    ];
}

history::planted_switch!(Bug);
