//! The edges between roles, on one page.
//!
//! ```text
//!            holder dead             granted             all merged
//!   Replica ─────────────> Orphan ─────────────> Adopting ────────────> Owned ──── drain ───> Draining
//!    ^  ^ <── holder back ──┘ ^                     │                 lease│^ renewed            │
//!    │  │                     │ winner dead         │ a higher epoch      v│                     │
//!    │  └──── all offered ── Fenced <───────────────┴────────────────── Suspect                  │
//!    └──────────────────────────────── the heir's epoch ─────────────────────────────────────────┘
//! ```

use super::Role;

/// What happens to a group at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleEvent {
    /// The holder of the highest epoch known is dead.
    HolderDead,
    /// It is heard again, and nobody has taken the group.
    HolderBack,
    /// This node takes the group in a new epoch: the rule chose it, or the holder hands it over.
    Granted,
    /// All workers have merged.
    Merged,
    /// So long no heartbeat was sent that others may think this node dead.
    LeaseOver,
    /// Heartbeats leave again, and nobody who is alive knows of a higher epoch.
    LeaseRenewed,
    /// This node wants to leave, or the group's home has room for it.
    Drain,
    /// It stays after all.
    Undrain,
    /// After HANDOVER: the heir's higher epoch is seen.
    HandedOver,
    /// A higher epoch of another node is seen.
    Superseded,
    /// All workers have offered what only they had, and have pulled again.
    Offered,
}

impl RoleEvent {
    #[cfg(test)]
    pub(crate) const ALL: [RoleEvent; 11] = [
        RoleEvent::HolderDead,
        RoleEvent::HolderBack,
        RoleEvent::Granted,
        RoleEvent::Merged,
        RoleEvent::LeaseOver,
        RoleEvent::LeaseRenewed,
        RoleEvent::Drain,
        RoleEvent::Undrain,
        RoleEvent::HandedOver,
        RoleEvent::Superseded,
        RoleEvent::Offered,
    ];
}

impl Role {
    /// The role after an event; `None`: the event says nothing to this role.
    pub(crate) const fn after(self, event: RoleEvent) -> Option<Role> {
        use Role::*;
        use RoleEvent as E;
        Some(match (self, event) {
            (Replica, E::HolderDead) => Orphan,
            // From Replica by HANDOVER: never a moment without an owner.
            (Replica | Orphan, E::Granted) => Adopting,
            (Replica | Orphan, E::Superseded) | (Orphan, E::HolderBack) => Replica,

            (Adopting, E::Merged) => Owned,
            // The workers stop at the lease's end whatever the role; an adoption in doubt stays one.
            (Owned | Draining, E::LeaseOver) => Suspect,
            (Suspect, E::LeaseRenewed) => Owned,
            (Owned, E::Drain) => Draining,
            (Draining, E::Undrain) => Owned,
            (Draining, E::HandedOver) => Replica,

            (Adopting | Owned | Suspect | Draining | Fenced, E::Superseded) => Fenced,
            (Fenced, E::Offered) => Replica,
            // The winner died before all was offered: what this node has is a copy as good as others.
            (Fenced, E::HolderDead) => Orphan,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use core::fmt::Write;

    /// Every (state, event) pair on one page: a changed edge shows in review.
    #[test]
    fn whole_table_of_roles() {
        let mut page = String::new();
        for role in Role::ALL {
            writeln!(page, "{role:?}").expect("a string grows");
            for event in RoleEvent::ALL {
                match role.after(event) {
                    Some(next) => writeln!(page, "    {event:<12?} -> {next:?}"),
                    None => writeln!(page, "    {event:<12?} -> (nothing)"),
                }
                .expect("a string grows");
            }
        }
        insta::assert_snapshot!(page);
    }

    #[test]
    fn only_a_grant_makes_a_holder_of_who_is_none() {
        for role in Role::ALL.into_iter().filter(|r| !r.is_holder()) {
            for event in RoleEvent::ALL {
                let becomes = role.after(event).is_some_and(Role::is_holder);
                assert_eq!(
                    becomes,
                    event == RoleEvent::Granted && role != Role::Fenced,
                    "{role:?} {event:?}"
                );
            }
        }
    }
}
