//! The keys under `fingerprints` and of a network.

use super::super::shape::Kind::{Flag, List, Some, Text, Word};
use super::super::shape::Need::{Absent, Default, Required};
use super::super::shape::Shape;
use super::key;

/// Client hints that browsers send only when asked (<https://wicg.github.io/ua-client-hints/>).
const HINTS: &[&str] = &[
    "Sec-CH-UA-Arch",
    "Sec-CH-UA-Bitness",
    "Sec-CH-UA-Form-Factors",
    "Sec-CH-UA-Full-Version-List",
    "Sec-CH-UA-Model",
    "Sec-CH-UA-Platform-Version",
    "Sec-CH-UA-WoW64",
];

pub static FINGERPRINTS: Shape = Shape {
    name: "fingerprints",
    doc: "What connections show of the programs behind them, and what is made of it. `docs/fingerprints.md` says what each signal can and cannot prove.",
    keys: &[
        key(
            "known",
            Text("file"),
            Absent("the built-in table alone"),
            "Your own table of known signatures, in the form of the built-in one: its rows come first. Read again when it changes.",
        ),
        key(
            "ja3",
            Flag,
            Default("false"),
            "`true`: compute JA3 as well, for tools that know nothing newer. Browsers permute what it hashes, so that it changes with every connection.",
        ),
        key(
            "accept_ch",
            List(&Word(HINTS)),
            Absent("nothing is asked: brand, platform and mobile come without asking"),
            "Client hints to ask browsers for, by `Accept-CH` on HTTPS answers that have none of their own. They arrive with the next request; until then \
             nothing follows from their absence. A model or full version says more about a person than most policies need.",
        ),
    ],
};

pub static NETWORK: Shape = Shape {
    name: "network",
    doc: "A list of ranges alone is short for a network whose connections may come through others.",
    keys: &[
        key("ranges", Some(&Text("network")), Required, "Address ranges or addresses."),
        key(
            "syn",
            Word(&["relayed", "direct"]),
            Default("relayed"),
            "`direct`: nothing between these clients and the proxy opens connections for them (no explicit proxy, VPN concentrator, balancer or carrier's \
             accelerator), so that a SYN of another system than the one claimed counts as a contradiction. `relayed`: it does not.",
        ),
    ],
};
