//! The keys under `fingerprints` and of a network.

use super::super::shape::Kind::{Count, Duration, Flag, List, Some, Text, Word};
use super::super::shape::Need::{Absent, Default, Required};
use super::super::shape::{Kind, Shape};
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
        key(
            "hash",
            Word(&["personal", "all", "none"]),
            Default("personal"),
            "Whose fingerprints the store keeps as keyed hashes instead of texts. `personal`: those of every device that is not recorded as corporate, and of \
             blind ones, which may be anybody's. `all`, `none`: of all, of none. Names of stacks and systems stay readable. A hash tells whether two are the \
             same, and nothing else to whoever has it alone: exports, the API. The store has the key too: whoever has the file can try what is known.",
        ),
        key(
            "baseline",
            Kind::Shape(&BASELINE),
            Absent("the defaults of its keys"),
            "What devices speak, and when another stack is a drift.",
        ),
        key("census", Kind::Shape(&CENSUS), Absent("the defaults of its keys"), "What is remembered of devices without a record."),
    ],
};

pub static BASELINE: Shape = Shape {
    name: "baseline",
    doc: "The stacks (families of TLS hello, HTTP/2 opening and, where a network says `syn: direct`, SYN) that each device with a record speaks. One that is new to \
          a device past its learning raises `wire.drift` for the connections that speak it, until an operator accepts it (`vestibule devices baseline ID \
          --accept`), the fleet makes the same change, or it has been there for `clear_after`.",
    keys: &[
        key(
            "learn",
            Duration("1s", "365d"),
            Default("7d"),
            "From a device's first visit; what it speaks meanwhile is its own. Longer: more of its programs are known, and whoever steals a new key is learned \
             for longer.",
        ),
        key(
            "fleet_share",
            Count { min: 1, max: 100 },
            Default("10"),
            "Percent of the devices seen within `fleet_window`. A change that so many of them made in that time, such as a browser's release, is learned. Lower: \
             fewer stolen keys look like a release.",
        ),
        key(
            "fleet_devices",
            Count { min: 2, max: 1_000_000 },
            Default("3"),
            "And never fewer devices than this, so that in a small fleet one device is not a release.",
        ),
        key("fleet_window", Duration("1s", "365d"), Default("14d"), "Within how long these devices must have made the change."),
        key(
            "clear_after",
            Duration("1s", "3650d"),
            Default("30d"),
            "A drift that was seen for so long, without a pause longer than `learn`, is the device's own. Shorter: a thief waits for it. `3650d` leaves it to \
             operators and the fleet.",
        ),
        key(
            "keep",
            Duration("1s", "3650d"),
            Default("90d"),
            "A stack that was not seen for so long is forgotten; a device of which all are forgotten is learned anew. Longer: personal data is kept for longer.",
        ),
        key(
            "entries",
            Count { min: 0, max: 10_000_000 },
            Default("100000"),
            "Devices remembered, about 400 bytes of memory each. Further ones are not learned and never drift; `0` remembers none.",
        ),
    ],
};

pub static CENSUS: Shape = Shape {
    name: "census",
    doc: "Devices without a record, grouped by stack, possible systems and network; unknown stacks by their fingerprint. Printed by `vestibule devices blind`.",
    keys: &[
        key(
            "entries",
            Count { min: 0, max: 1_000_000 },
            Default("10000"),
            "Groups remembered, about 400 bytes of memory each. Beyond it those seen on the fewest hours make room and are counted together as `other`. `0` \
             remembers none.",
        ),
        key(
            "keep",
            Duration("1s", "3650d"),
            Default("30d"),
            "A group that was not seen for so long is forgotten. Also how long a device counts in `vestibule_devices_seen`.",
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
