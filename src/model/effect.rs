//! What is done with a request.

/// What a rule asks for. The order is strictness: of two effects the greater one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Forward,
    Restrict,
    Block,
}

impl Effect {
    pub const ALL: [Self; 3] = [Self::Forward, Self::Restrict, Self::Block];

    /// The word in YAML, in metric labels and in the decision log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Restrict => "restrict",
            Self::Block => "block",
        }
    }
}

/// Whether a rule, guardrail or app acts, or only records what it would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    #[default]
    Enforce,
    Report,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}
