//! What a client says of itself. Never trusted, always compared.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$note])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in YAML conditions and in the decision log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl $crate::model::Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn bit(self) -> u32 {
                1 << self as u32
            }

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    };
}
pub(super) use words;

words!(
    /// An operating system family, as claimed or as recorded.
    Os { Windows = "windows", MacOs = "macos", Ios = "ios", Android = "android", Linux = "linux", ChromeOs = "chromeos", Other = "other" }
);

words!(
    /// A client program's family, as claimed or as the wire has it.
    Browser {
        Chrome = "chrome", Chromium = "chromium", Edge = "edge", Firefox = "firefox", Safari = "safari", Opera = "opera",
        Samsung = "samsung", WebView = "webview", Curl = "curl", Wget = "wget", Python = "python", Go = "go", Java = "java",
        Node = "node", OkHttp = "okhttp", Bot = "bot", Other = "other",
        /// WebKit elsewhere than at Apple's (GNOME Web, embedded systems). It claims to be Safari; only the wire has this word.
        WebKitGtk = "webkitgtk",
        /// Only the wire has this word: programs in .NET, PowerShell among them.
        DotNet = "dotnet",
        /// Only the wire has this word: reqwest, hyper and others on rustls.
        Rust = "rust",
    }
);

impl Browser {
    /// Whether `identify::claims` ever says it of a client; the others are the wire's alone.
    pub const fn is_claimed(self) -> bool {
        !matches!(self, Self::WebKitGtk | Self::DotNet | Self::Rust)
    }
}

words!(
    FormFactor { Desktop = "desktop", Phone = "phone", Tablet = "tablet", Tool = "tool", Other = "other" }
);

/// User-Agent and client hints, read once per connection and whenever they change. `None` is "unavailable": the client
/// said nothing that we understand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub os: Option<Os>,
    pub os_version: Option<String>,
    pub browser: Option<Browser>,
    /// The major version of `browser`.
    pub browser_version: Option<u32>,
    pub form_factor: Option<FormFactor>,
}

words!(
    /// What a browser is built on, as it says itself. Every browser on iOS is Apple's.
    Engine { Chromium = "chromium", Firefox = "firefox", Apple = "apple" }
);

/// What one of the two sides says: the User-Agent or the client hints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub claims: Claims,
    pub engine: Option<Engine>,
    /// The engine's own major version: Chromium's for Opera, which counts otherwise; Safari's for Apple's.
    pub engine_version: Option<u32>,
}

/// Everything that a client claims, both sides and what they come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    pub merged: Claims,
    pub user_agent: Side,
    pub hints: Side,
}
