#![no_main]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use jiff::civil::Weekday;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use vestibule::model::{
    Claims, Device, DeviceState, Effect, Fact, FactState, Freshness, Host, Mode, NoRecord, Observation, Opening, Os, Ownership, Sight,
    Standing, Wire,
};
use vestibule::policy::draft::{
    App, Cap, Class, Compare, Condition, Delegation, DeviceField, Draft, Exception, Fix, Glob, Guardrail, HostPattern, KeyProof, Ladder,
    Layer, Lifts, Network, Owner, Restriction, Rule, Source, Step, Test, Tier, Version, Want, Who, WireField,
};
use vestibule::policy::{AppId, ClassId, Given, Http, Inputs, OwnerId, Permit, Policy, RestrictionId, RuleRef, TierId, ZoneId};

const FACTS: [&str; 3] = ["disk_encrypted", "screen_lock", "patched"];
const WORDS: [&str; 12] =
    ["", "*", "a", "a*b", "*a*", "/", "/a/*", "none", "approved", "corporate", "linux", "GET"];
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"];

// A policy as no configuration would write it, ids of nothing included, and a request that it decides: nothing panics, the same inputs have the same
// decision until the moment that it names, only what is not blocked has a permit, and an enforced guardrail that always holds blocks.
fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut draft = draft(u)?;
    let (standing, host, headers, sight) = (standing(u)?, host(u)?, headers(u)?, Sight { drift: u.arbitrary()?, ..Sight::default() });
    let (wire, opening, claims) = (Wire::default(), Opening::default(), Claims { os: os(u)?, ..Claims::default() });
    let path = format!("/{}", word(u)?);
    let now = moment(u)?;
    let at = |now| Inputs {
        now,
        standing: &standing,
        peer: IpAddr::from([192, 0, 2, 1]),
        zone: None,
        wire: &wire,
        opening: &opening,
        sight: &sight,
        claims: &claims,
        http: Http { method: "GET", host: &host, path: &path, headers: &headers },
        given: Given::default(),
    };
    let inputs = at(now);
    let app = AppId(u.int_in_range(0..=3)?);
    let policy = Policy::compile(draft.clone());
    let decision = policy.decide(app, &inputs);
    assert_eq!(decision, policy.decide(app, &inputs));
    assert_eq!(decision, policy.explain(app, &inputs).decision);
    assert_eq!(Permit::of(&decision).is_some(), decision.done.effect != Effect::Block);
    assert!(decision.done.effect == Effect::Restrict || decision.done.restrictions.is_empty());
    assert!(decision.notices.is_empty() || decision.done.effect != Effect::Block);
    if let Some(until) = decision.valid_until {
        assert!(now < until);
        let later = now + until.duration_since(now) / 2;
        let again = policy.decide(app, &at(later));
        assert_eq!((again.done, again.would, again.notices), (decision.done, decision.would, decision.notices));
    }
    for id in decision.done.reasons.as_slice().iter().chain(decision.would.reasons.as_slice()) {
        assert!(policy.reasons().any(|(known, _)| known == *id));
    }
    policy.path_refused(decision.done.restrictions, &path);
    policy.fixes(&decision);

    let when = Condition::always();
    draft.guardrails.push(Guardrail { name: "all".to_owned(), apps: None, when, then: Effect::Block, with: vec![], mode: Mode::Enforce });
    let closed = Policy::compile(draft).decide(app, &inputs);
    let glass = matches!(closed.done.rule, RuleRef::Exception(_));
    assert!(closed.done.effect == Effect::Block || glass);
    Ok(())
}

fn draft(u: &mut Unstructured<'_>) -> Result<Draft> {
    let named = |name: &str| name.to_owned();
    Ok(Draft {
        revision: String::new(),
        time_zone: jiff::tz::TimeZone::get(u.choose(&ZONES)?).expect("a zone"),
        owners: some(u, 3, |_| Ok(Owner { name: named("security"), contact: String::new() }))?,
        networks: vec![Network { name: named("office"), ranges: vec!["10.0.0.0/8".parse().expect("a range")], syn_is_direct: false }],
        sources: vec![Source { name: named("mdm"), ttl: Duration::from_secs(86_400) }, Source { name: named("long"), ttl: Duration::MAX }],
        fixes: vec![Fix { fact: named("patched"), text: String::new(), help: None }],
        classes: some(u, 3, |u| Ok(Class { name: String::new(), when: condition(u, 0)? }))?,
        tiers: some(u, 4, |u| Ok(Tier { name: String::new(), require: condition(u, 0)? }))?,
        caps: some(u, 2, |u| Ok(Cap { name: String::new(), when: condition(u, 0)?, max_tier: TierId(u.arbitrary()?) }))?,
        restrictions: some(u, 3, restriction)?,
        guardrails: some(u, 3, |u| {
            let Rule { name, when, then, with, mode } = rule(u)?;
            Ok(Guardrail { name, apps: apps(u)?, when, then, with, mode })
        })?,
        ladders: some(u, 3, |u| {
            let mut steps = some(u, 4, |u| Ok((moment(u)?, *u.choose(&[Step::Report, Step::Warn, Step::Restrict, Step::Block])?)))?;
            steps.sort_unstable();
            Ok(Ladder { name: String::new(), fact: fact(u)?, apps: apps(u)?, when: condition(u, 0)?, steps, with: with(u)? })
        })?,
        delegations: some(u, 3, |u| {
            let may = some(u, 3, |u| Ok(*u.choose(&Effect::ALL)?))?;
            Ok(Delegation { owner: owner(u)?, apps: apps(u)?.unwrap_or_default(), min_tier: TierId(u.arbitrary()?), may })
        })?,
        exceptions: some(u, 4, |u| {
            let who = if u.arbitrary()? { Who::Device(word(u)?) } else { Who::Tag(word(u)?) };
            let lifts = if u.arbitrary()? { Lifts::Checks(some(u, 3, fact)?) } else { Lifts::Everything };
            let from = if u.arbitrary()? { Some(moment(u)?) } else { None };
            let (apps, until) = (apps(u)?, moment(u)?);
            Ok(Exception { name: String::new(), who, lifts, apps, from, until, by: String::new(), ticket: String::new() })
        })?,
        apps: some(u, 3, |u| {
            Ok(App {
                name: String::new(),
                title: String::new(),
                owner: owner(u)?,
                labels: vec![],
                hosts: some(u, 2, |u| Ok(if u.arbitrary()? { HostPattern::Exact(host(u)?) } else { HostPattern::Below(host(u)?) }))?,
                path_prefix: word(u)?,
                mode: mode(u)?,
                rules: some(u, 4, rule)?,
            })
        })?,
        layers: some(u, 4, |u| Ok(Layer { owner: owner(u)?, apps: apps(u)?.unwrap_or_default(), rule: rule(u)? }))?,
    })
}

fn some<T>(u: &mut Unstructured<'_>, most: usize, mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=most)?;
    (0..count).map(|_| one(u)).collect()
}

fn word(u: &mut Unstructured<'_>) -> Result<String> {
    Ok((*u.choose(&WORDS)?).to_owned())
}

fn glob(u: &mut Unstructured<'_>) -> Result<Glob> {
    Ok(Glob(if u.ratio(1, 8)? { u.arbitrary()? } else { word(u)? }))
}

fn fact(u: &mut Unstructured<'_>) -> Result<Arc<str>> {
    Ok(Arc::from(*u.choose(&FACTS)?))
}

fn owner(u: &mut Unstructured<'_>) -> Result<OwnerId> {
    Ok(OwnerId(u.int_in_range(0..=3)?))
}

fn mode(u: &mut Unstructured<'_>) -> Result<Mode> {
    Ok(if u.arbitrary()? { Mode::Enforce } else { Mode::Report })
}

fn apps(u: &mut Unstructured<'_>) -> Result<Option<Vec<AppId>>> {
    Ok(if u.arbitrary()? { Some(some(u, 3, |u| Ok(AppId(u.int_in_range(0..=4)?)))?) } else { None })
}

fn with(u: &mut Unstructured<'_>) -> Result<Vec<RestrictionId>> {
    some(u, 2, |u| Ok(RestrictionId(u.int_in_range(0..=70)?)))
}

fn os(u: &mut Unstructured<'_>) -> Result<Option<Os>> {
    Ok(u.arbitrary::<bool>()?.then_some(Os::Linux))
}

/// Near a day in 2027, at the beginning or at the end of time.
fn moment(u: &mut Unstructured<'_>) -> Result<Timestamp> {
    Ok(match u.int_in_range(0..=20)? {
        0 => Timestamp::MIN,
        1 => Timestamp::MAX - jiff::SignedDuration::from_nanos(1),
        _ => Timestamp::from_second(1_800_000_000 + i64::from(u.arbitrary::<i16>()?) * 60).expect("a moment"),
    })
}

fn rule(u: &mut Unstructured<'_>) -> Result<Rule> {
    Ok(Rule { name: String::new(), when: condition(u, 0)?, then: *u.choose(&Effect::ALL)?, with: with(u)?, mode: mode(u)? })
}

fn restriction(u: &mut Unstructured<'_>) -> Result<Restriction> {
    Ok(Restriction {
        methods: if u.arbitrary()? { Some(some(u, 2, word)?) } else { None },
        allowed_paths: if u.arbitrary()? { Some(some(u, 2, glob)?) } else { None },
        denied_paths: some(u, 2, glob)?,
        max_body: u.arbitrary()?,
        max_stream: u.arbitrary()?,
        ..Restriction::default()
    })
}

fn condition(u: &mut Unstructured<'_>, depth: usize) -> Result<Condition> {
    let kind = if depth > 4 { 9 } else { u.int_in_range(0..=9)? };
    Ok(match kind {
        0 => Condition::All(some(u, 3, |u| condition(u, depth + 1))?),
        1 => Condition::Any(some(u, 3, |u| condition(u, depth + 1))?),
        2 => Condition::Not(Box::new(condition(u, depth + 1)?)),
        _ => Condition::Test(test(u)?),
    })
}

fn test(u: &mut Unstructured<'_>) -> Result<Test> {
    const FIELDS: [DeviceField; 10] = [
        DeviceField::Id,
        DeviceField::Name,
        DeviceField::Ownership,
        DeviceField::OnNet,
        DeviceField::State,
        DeviceField::User,
        DeviceField::Team,
        DeviceField::Os,
        DeviceField::Model,
        DeviceField::Tags,
    ];
    Ok(match u.int_in_range(0..=16)? {
        0 => Test::Class(some(u, 3, |u| Ok(ClassId(u.arbitrary()?)))?),
        1 => Test::Tier(some(u, 2, |u| Ok((compare(u)?, TierId(u.int_in_range(0..=5)?))))?),
        2 => Test::Device(*u.choose(&FIELDS)?, want(u)?),
        3 => Test::Fact(fact(u)?, some(u, 2, |u| Ok(*u.choose(&FactState::ALL)?))?),
        4 => Test::FactAge(fact(u)?, ages(u)?),
        5 => Test::PostureAge(ages(u)?),
        6 => Test::KnownFor(ages(u)?),
        7 => Test::OsVersion(some(u, 2, |u| Ok((compare(u)?, Version(some(u, 3, |u| u.arbitrary())?))))?),
        8 => Test::KeyProof(vec![KeyProof::Certificate]),
        9 => Test::Wire(*u.choose(&WireField::ALL)?, want(u)?),
        10 => Test::Zone(vec![u.arbitrary::<bool>()?.then_some(ZoneId(0))]),
        11 => Test::Method(some(u, 2, glob)?),
        12 => Test::Path(some(u, 2, glob)?),
        13 => Test::Host(some(u, 2, glob)?),
        14 => Test::Header(HeaderName::from_static("x-a"), want(u)?),
        15 => Test::Weekday(some(u, 2, |u| Ok(*u.choose(&[Weekday::Friday, Weekday::Saturday])?))?),
        _ => Test::Hour(some(u, 2, |u| Ok((compare(u)?, u.arbitrary()?)))?),
    })
}

fn compare(u: &mut Unstructured<'_>) -> Result<Compare> {
    Ok(*u.choose(&[Compare::Less, Compare::AtMost, Compare::Equal, Compare::AtLeast, Compare::More])?)
}

fn ages(u: &mut Unstructured<'_>) -> Result<Vec<(Compare, Duration)>> {
    some(u, 2, |u| Ok((compare(u)?, if u.ratio(1, 8)? { Duration::MAX } else { Duration::from_secs(u.arbitrary::<u16>()?.into()) })))
}

fn want(u: &mut Unstructured<'_>) -> Result<Want> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Want::Any,
        1 => Want::None,
        _ => Want::Text(some(u, 2, glob)?),
    })
}

fn host(u: &mut Unstructured<'_>) -> Result<Host> {
    Ok(vestibule::request::host(u.choose(&["a.example", "b.a.example", "example"])?).expect("a host"))
}

fn headers(u: &mut Unstructured<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for value in some(u, 2, |u| Ok(*u.choose(&["a", "none", ""])?))? {
        headers.append("x-a", HeaderValue::from_static(value));
    }
    Ok(headers)
}

fn standing(u: &mut Unstructured<'_>) -> Result<Standing> {
    let mut device = Device::blank(&word(u)?, *u.choose(&DeviceState::ALL)?, "", moment(u)?);
    device.tags = some(u, 2, word)?;
    device.team = if u.arbitrary()? { Some(word(u)?) } else { None };
    device.ownership = u.arbitrary::<bool>()?.then_some(Ownership::Corporate);
    device.os_version = if u.arbitrary()? { Some(u.arbitrary()?) } else { None };
    for name in FACTS {
        let observations = some(u, 2, |u| {
            let source = (*u.choose(&["mdm", "long", "rumour"])?).to_owned();
            let expires_at = if u.arbitrary()? { Some(moment(u)?) } else { None };
            Ok(Observation { ok: u.arbitrary()?, value: None, source, observed_at: moment(u)?, expires_at })
        })?;
        device.posture.push(Fact { name: name.to_owned(), observations });
    }
    let freshness = *u.choose(&[Freshness::Fresh, Freshness::Stale, Freshness::TooOld])?;
    Ok(match u.int_in_range(0..=8)? {
        0 => Standing::NoRecord(NoRecord::NoProof),
        1 => Standing::Unreadable,
        _ => Standing::Known { device: Arc::new(device), freshness, proof_ends: if u.arbitrary()? { i64::MAX } else { 1_800_000_000 } },
    })
}
