//! The system that a device's record names.

use crate::model::Os;

/// Records are written by people and by management systems: `macOS 15.1`, `Windows 11 Pro`, `iPadOS`. `None`: a name that is not known here, which says
/// nothing.
pub fn recorded_os(name: &str) -> Option<Os> {
    const FAMILIES: [(&str, Os); 21] = [
        ("windows", Os::Windows),
        ("macos", Os::MacOs),
        ("mac os", Os::MacOs),
        ("os x", Os::MacOs),
        ("osx", Os::MacOs),
        ("darwin", Os::MacOs),
        ("ios", Os::Ios),
        ("ipados", Os::Ios),
        ("iphone", Os::Ios),
        ("android", Os::Android),
        ("chromeos", Os::ChromeOs),
        ("chrome os", Os::ChromeOs),
        ("linux", Os::Linux),
        ("gnu/linux", Os::Linux),
        ("ubuntu", Os::Linux),
        ("debian", Os::Linux),
        ("fedora", Os::Linux),
        ("red hat", Os::Linux),
        ("rhel", Os::Linux),
        ("suse", Os::Linux),
        ("arch linux", Os::Linux),
    ];
    let name = name.trim();
    let begins = |family: &str| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
    // `iosevka` is nobody's system, and `windowsill` neither.
    let whole = |family: &str| name.get(family.len()..).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    FAMILIES.into_iter().find(|(family, _)| begins(family) && whole(family)).map(|(_, os)| os)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_systems_in_many_ways() {
        for (name, os) in [
            ("macos", Some(Os::MacOs)),
            ("macOS 15.1", Some(Os::MacOs)),
            ("Mac OS X", Some(Os::MacOs)),
            ("Windows 11 Pro", Some(Os::Windows)),
            (" windows", Some(Os::Windows)),
            ("iPadOS", Some(Os::Ios)),
            ("iOS", Some(Os::Ios)),
            ("Android 15", Some(Os::Android)),
            ("ChromeOS", Some(Os::ChromeOs)),
            ("Ubuntu 24.04", Some(Os::Linux)),
            ("linux", Some(Os::Linux)),
            ("iosevka", None),
            ("", None),
            ("os", None),
            ("größe", None),
            ("TempleOS", None),
        ] {
            assert_eq!(recorded_os(name), os, "{name}");
        }
    }
}
