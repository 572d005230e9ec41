//! What is told of a connection to the memory of devices, and the drift that it answers with: asked once, and anew when the answer may be another.

use std::time::Instant;

use jiff::Timestamp;
use smallvec::SmallVec;

use super::House;
use super::conn::{Conn, Known};
use crate::model::Standing;
use crate::policy::{AppId, ClassId};
use crate::posture::{Memory, Sighting};

/// Apps that one connection is counted for in the census. A connection that asks for more is no visitor of apps.
const APPS_MAX: usize = 64;

/// What a connection's device was sighted as.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// What the answer holds for.
    asked: Option<Asked>,
    drift: bool,
    /// The class that was told.
    class: Option<ClassId>,
    /// Those that the connection is counted for, while it is of a device without a record.
    apps: SmallVec<[AppId; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    standing: u64,
    generation: u64,
    until: Instant,
}

impl Conn {
    /// Whether the device that proved itself drifts. Compares numbers and nothing else while nothing changed.
    pub(super) fn drifts(&self, house: &House, known: &Known, app: AppId, (now, instant): (Timestamp, Instant)) -> bool {
        let memory = &house.rules.memory;
        let generation = memory.generation();
        let arrives = {
            let state = self.state.borrow();
            let remembered = &state.remembered;
            let told = match known.standing {
                Standing::Known { .. } => remembered
                    .asked
                    .is_some_and(|asked| asked.standing == known.serial && asked.generation == generation && instant < asked.until),
                Standing::NoRecord(_) => remembered.apps.contains(&app) || remembered.apps.len() == APPS_MAX,
                Standing::Unreadable => true,
            };
            if told {
                return remembered.drift && matches!(known.standing, Standing::Known { .. });
            }
            remembered.apps.is_empty()
        };
        let policy = &house.rules.policy;
        let sighting = Sighting {
            wire: &self.wire,
            opening: self.opening(),
            identification: &self.glance(house).identification,
            syn_is_direct: known.zone.is_some_and(|zone| policy.syn_is_direct(zone)),
            zone: known.zone.map(|zone| policy.zone_name(zone)),
            peer: self.peer,
            app: policy.app_name(app),
            owner: &policy.owner(policy.app_owner(app)).name,
            arrives,
        };
        let drift = memory.sight(&known.standing, &sighting, now);
        let remembered = &mut self.state.borrow_mut().remembered;
        if matches!(known.standing, Standing::NoRecord(_)) {
            remembered.apps.push(app);
            return false;
        }
        remembered.asked = Some(Asked { standing: known.serial, generation, until: instant + Memory::holds(drift) });
        remembered.drift = drift;
        remembered.class = None;
        drift
    }

    /// Tells the class that a decision gave to the device.
    pub(super) fn classed(&self, house: &House, standing: &Standing, class: ClassId) {
        let Some(device) = standing.device() else { return };
        let told = self.state.borrow_mut().remembered.class.replace(class);
        if told != Some(class) {
            house.rules.memory.classed(&device.id, house.rules.policy.class_name(class));
        }
    }
}
