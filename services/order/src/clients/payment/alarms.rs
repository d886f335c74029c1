//! Faults that need a person. Each has a line in the log, which says more.

use service::telemetry::{counter, label};

#[derive(Clone, Copy, Debug)]
pub enum Alarm {
    /// The provider does not take our key: nothing can be paid.
    KeyRefused,
    /// It refuses a request as wrong.
    OurMistake,
    /// What was held, taken or given back is not what the order says.
    Mismatch,
    /// A customer has complained to their bank.
    Disputed,
    /// An answer that this version does not know.
    AnswerUnknown,
}

impl Alarm {
    const ALL: [Self; 5] =
        [Self::KeyRefused, Self::OurMistake, Self::Mismatch, Self::Disputed, Self::AnswerUnknown];

    fn as_str(self) -> &'static str {
        match self {
            Self::KeyRefused => "key_refused",
            Self::OurMistake => "our_mistake",
            Self::Mismatch => "mismatch",
            Self::Disputed => "disputed",
            Self::AnswerUnknown => "answer_unknown",
        }
    }

    pub fn count(self) {
        self.add(1);
    }

    /// Shows all of them with 0, before any has come.
    pub fn show_all() {
        Self::ALL.iter().for_each(|alarm| alarm.add(0));
    }

    fn add(self, number: u64) {
        let description = "Answers of the card provider that a person has to look at.";
        counter("payment.alarms", "{answer}", description).add(number, &[label("reason", self.as_str())]);
    }
}
