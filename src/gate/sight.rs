//! What is made of a connection for its requests: made once, and anew when something that it was made of changed.

use std::rc::Rc;
use std::sync::Arc;

use super::conn::{Conn, Known};
use super::{House, Rules};
use crate::model::{Claims, Identification, Set, Sight};
use crate::policy::ZoneId;
use crate::record::Connection;

/// A connection's sight with what it was made of.
#[derive(Debug, Default)]
pub(super) struct Sighted {
    /// The serial of the rules whose table identified the wire.
    identified: Option<(u64, Arc<Identification>)>,
    made_of: Option<MadeOf>,
    sight: Rc<Sight>,
    /// Changes whenever `sight` does.
    serial: u64,
    /// What this connection was counted for.
    counted: Set<crate::model::Contradiction>,
}

/// Serial numbers of the connection's own values, as in the memo's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MadeOf {
    rules: u64,
    standing: u64,
    claims: u64,
}

impl Conn {
    /// The wire identified, and these claims and this standing held against it. Nothing but a comparison of numbers while nothing changed.
    pub(super) fn sight(&self, house: &House, known: &Known, (claims, claimed): (&Rc<Claims>, u64)) -> (Rc<Sight>, u64) {
        let made_of = MadeOf { rules: house.rules.serial, standing: known.serial, claims: claimed };
        let mut state = self.state.borrow_mut();
        let sighted = &mut state.sighted;
        if sighted.made_of != Some(made_of) {
            let identification = self.identification(sighted, &house.rules);
            let sight = look(identification, claims, known);
            self.core.desk.contradicted(sight.comparison.contradictions, &mut sighted.counted);
            if sighted.serial == 0 || *sighted.sight != sight {
                sighted.sight = Rc::new(sight);
                sighted.serial += 1;
            }
            sighted.made_of = Some(made_of);
        }
        (Rc::clone(&sighted.sight), sighted.serial)
    }

    /// The wire identified and nothing held against it: for a request of which nobody asked who sent it.
    pub(super) fn glance(&self, house: &House) -> Sight {
        let identification = self.identification(&mut self.state.borrow_mut().sighted, &house.rules);
        Sight { identification, ..Sight::default() }
    }

    fn identification(&self, sighted: &mut Sighted, rules: &Rules) -> Arc<Identification> {
        match &sighted.identified {
            Some((serial, identification)) if *serial == rules.serial => Arc::clone(identification),
            _ => {
                let identification = Arc::new(Identification::default());
                sighted.identified = Some((rules.serial, Arc::clone(&identification)));
                identification
            }
        }
    }

    /// What a line of the log tells of this connection.
    pub(super) fn told<'a>(&'a self, zone: Option<ZoneId>, claims: &'a Claims, sight: &'a Sight) -> Connection<'a> {
        Connection { listener: &self.door.listener, peer: self.peer, zone, wire: &self.wire, opening: self.opening(), claims, sight }
    }
}

fn look(identification: Arc<Identification>, _claims: &Claims, _known: &Known) -> Sight {
    Sight { identification, ..Sight::default() }
}
