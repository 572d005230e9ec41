//! Indices into one compiled policy's tables. An id means nothing to another policy.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($int:ty)),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

ids! {
    AppId(u32),
    OwnerId(u16),
    /// Index into the configured classes; `BLIND` and `UNCLASSIFIED` are the two that nobody configures.
    ClassId(u16),
    /// Lowest first.
    TierId(u8),
    RestrictionId(u8),
    ZoneId(u16),
    /// Index into what a person can be told to mend.
    FixId(u16),
}

impl ClassId {
    pub const BLIND: Self = Self(u16::MAX);
    pub const UNCLASSIFIED: Self = Self(u16::MAX - 1);
}
