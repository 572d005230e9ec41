//! What is made of a connection for its requests: made once, and anew when something that it was made of changed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::conn::{Conn, Known};
use super::middlebox::Passer;
use super::{House, Rules};
use crate::identify::{self, Path};
use crate::model::{Claims, Contradiction, Identification, Set, Sides, Sight, Standing};
use crate::policy::ZoneId;
use crate::record::Connection;

/// A connection's sight with what it was made of.
#[derive(Debug, Default)]
pub(super) struct Sighted {
    /// With the serial of the rules whose table it is by.
    identified: Option<(u64, Arc<Identification>)>,
    made_of: Option<MadeOf>,
    sight: Rc<Sight>,
    /// Changes whenever `sight` does.
    serial: u64,
    /// What this connection was counted for.
    counted: Set<Contradiction>,
}

/// Everything that a sight depends on besides the connection itself, by serial numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MadeOf {
    rules: u64,
    standing: u64,
    claims: u64,
    turns: u64,
    drift: bool,
}

impl Conn {
    /// The wire identified, and these claims and this standing held against it. Numbers are compared, and nothing else is done, while nothing changed.
    pub(super) fn sight(
        &self,
        house: &House,
        known: &Known,
        (sides, claimed): (&Sides, u64),
        drift: bool,
        now: Instant,
    ) -> (Rc<Sight>, u64) {
        let rules = &house.rules;
        let made_of = MadeOf { rules: rules.serial, standing: known.serial, claims: claimed, turns: rules.middleboxes.turns(), drift };
        let mut state = self.state.borrow_mut();
        let sighted = &mut state.sighted;
        if sighted.made_of != Some(made_of) {
            let sight = Sight { drift, ..self.look(rules, self.identified(sighted, rules), known, sides, now) };
            self.core.desk.contradicted(sight.comparison.contradictions, &mut sighted.counted);
            if sighted.serial == 0 || *sighted.sight != sight {
                sighted.sight = Rc::new(sight);
                sighted.serial += 1;
            }
            sighted.made_of = Some(made_of);
        }
        (Rc::clone(&sighted.sight), sighted.serial)
    }

    /// The same, for claims of an earlier request; nothing is kept of it.
    pub(super) fn sight_now(&self, house: &House, known: &Known, sides: &Sides, drift: bool, now: Instant) -> Sight {
        let identification = self.identified(&mut self.state.borrow_mut().sighted, &house.rules);
        Sight { drift, ..self.look(&house.rules, identification, known, sides, now) }
    }

    /// The wire identified and nothing held against it: for a request of which nobody asked who sent it.
    pub(super) fn glance(&self, house: &House) -> Sight {
        let identification = self.identified(&mut self.state.borrow_mut().sighted, &house.rules);
        Sight { identification, ..Sight::default() }
    }

    fn identified(&self, sighted: &mut Sighted, rules: &Rules) -> Arc<Identification> {
        match &sighted.identified {
            Some((serial, identification)) if *serial == rules.serial => Arc::clone(identification),
            _ => {
                let identification = Arc::new(rules.known.identify(&self.wire, self.opening()));
                sighted.identified = Some((rules.serial, Arc::clone(&identification)));
                identification
            }
        }
    }

    fn look(&self, rules: &Rules, identification: Arc<Identification>, known: &Known, sides: &Sides, now: Instant) -> Sight {
        let device = known.standing.device();
        let intercepted = self.wire.ja4_stable.as_ref().is_some_and(|stack| {
            let device = device.map(|device| device.id.as_str());
            let passer = Passer { stack, peer: self.peer, zone: known.zone, device, engine: sides.user_agent.engine };
            rules.middleboxes.intercepted(&passer, now)
        });
        let recorded = match &known.standing {
            Standing::Known { device, .. } => device.os.as_deref().and_then(identify::recorded_os),
            Standing::NoRecord(_) | Standing::Unreadable => None,
        };
        let path = Path { syn_direct: known.zone.is_some_and(|zone| rules.policy.syn_is_direct(zone)), intercepted };
        let comparison = identify::compare(sides, &identification, recorded, path);
        Sight { identification, comparison, intercepted, drift: false }
    }

    /// What a line of the log tells of this connection.
    pub(super) fn told<'a>(&'a self, zone: Option<ZoneId>, claims: &'a Claims, sight: &'a Sight) -> Connection<'a> {
        let behind = self.behind.as_deref();
        Connection {
            listener: &self.door.listener,
            peer: self.peer,
            via: behind.map(|behind| &behind.via[..]).unwrap_or_default(),
            via_id: behind.and_then(|behind| behind.connection.as_deref()),
            zone,
            wire: &self.wire,
            opening: self.opening(),
            claims,
            sight,
        }
    }
}
