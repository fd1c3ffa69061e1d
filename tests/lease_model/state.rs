//! What the model remembers: small numbers only. Ages instead of instants, so that time goes on and
//! states come again; whether a revision is still the present one instead of its number.

pub(crate) const NODES: usize = 3;
/// Ages that matter end here: a lease is 4 ticks.
pub(crate) const OLD: u8 = 5;

pub(crate) type Node = u8;
/// A bit for each.
pub(crate) type Set = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rec {
    pub(crate) holder: Node,
    pub(crate) epoch: u8,
    pub(crate) renewals: u8,
    pub(crate) timeline: u8,
    pub(crate) sync: Set,
    pub(crate) before: Option<Node>,
    pub(crate) released: Option<(Option<Node>, Option<u8>)>,
}

/// `synchronous_standby_names`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Names {
    Nobody,
    Only(Node),
    /// Each of these two, the second of which is to come into the record.
    Both(Node, Node),
    /// A name that no node has.
    NoStandby,
}

/// A compare-and-swap on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) record: Rec,
    /// The record is still what it was asked for.
    pub(crate) current: bool,
    /// It is to take the lead.
    pub(crate) takes: bool,
    pub(crate) sent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(crate) record: Rec,
    pub(crate) current: bool,
    pub(crate) good: u8,
    pub(crate) tried: u8,
    pub(crate) open: [Option<(u8, Rec)>; 3],
    pub(crate) gives_up: bool,
    pub(crate) attempts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) seen: Option<Rec>,
    pub(crate) current: bool,
    pub(crate) changed: u8,
    pub(crate) agreed: Option<u8>,
    /// It tries to take the lead, for a revision that is present or past.
    pub(crate) tries: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct One {
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// Node half only: the server and the fence go on.
    pub(crate) stalled: bool,
    /// From the record's keepers.
    pub(crate) cut: bool,
    /// What the directory is.
    pub(crate) primary: bool,
    pub(crate) timeline: u8,
    /// A bit for each write; those of one node came in the order of the bits.
    pub(crate) has: u8,
    pub(crate) serves: bool,
    pub(crate) names: Names,
    /// How many writes there were when `names` was in force.
    pub(crate) since: u8,
    /// A client waits for this write.
    pub(crate) waits: Option<u8>,
    /// Its server was stopped, so that this one goes on.
    pub(crate) hands_to: Option<Node>,
    pub(crate) view: View,
    pub(crate) hold: Option<Hold>,
    pub(crate) request: Option<Request>,
    /// Given up by the sender; may be done yet. Only while the record is what it was asked for.
    pub(crate) late: Option<Rec>,
}

/// What may still go wrong, so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) faults: u8,
    pub(crate) slow_ticks: u8,
    pub(crate) handovers: u8,
    pub(crate) words: u8,
    pub(crate) failed_promotions: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) record: Rec,
    pub(crate) nodes: [One; NODES],
    /// Nobody reaches the record.
    pub(crate) outage: bool,
    /// The link that is cut, by the node that is not at it.
    pub(crate) cut_link: Option<Node>,
    pub(crate) left: Left,
    pub(crate) writes: u8,
    pub(crate) acknowledged: u8,
}

impl State {
    /// n0 leads, the others follow, nobody is synchronous yet.
    pub(crate) fn first(left: Left) -> Self {
        let record = Rec {
            holder: 0,
            epoch: EPOCH,
            renewals: 0,
            timeline: 1,
            sync: 0,
            before: None,
            released: None,
        };
        let view =
            View { seen: Some(record), current: true, changed: 0, agreed: None, tries: None };
        let standby = One {
            up: true,
            paused: false,
            stalled: false,
            cut: false,
            primary: false,
            timeline: 1,
            has: 0,
            serves: true,
            names: Names::Nobody,
            since: 0,
            waits: None,
            hands_to: None,
            view,
            hold: None,
            request: None,
            late: None,
        };
        let hold = Hold::begun(record, 0);
        let primary = One { primary: true, hold: Some(hold), ..standby };
        State {
            record,
            nodes: [primary, standby, standby],
            outage: false,
            cut_link: None,
            left,
            writes: 0,
            acknowledged: 0,
        }
    }

    pub(crate) fn linked(&self, one: Node, other: Node) -> bool {
        let well = |node: Node| self.nodes[node as usize].up && !self.nodes[node as usize].paused;
        well(one) && well(other) && self.cut_link != Some(3 - one - other)
    }

    pub(crate) fn linked_to(&self, one: usize, other: usize) -> bool {
        one != other && self.linked(one as Node, other as Node)
    }

    pub(crate) fn reaches_record(&self, node: usize) -> bool {
        !self.outage && !self.nodes[node].cut
    }

    /// The primary that `node` streams from.
    pub(crate) fn upstream(&self, node: usize) -> Option<usize> {
        let own = &self.nodes[node];
        (0..NODES).find(|&other| {
            let theirs = &self.nodes[other];
            other != node
                && !own.primary
                && own.serves
                && theirs.writes()
                && theirs.timeline == own.timeline
                && own.has & !theirs.has == 0
                && self.linked(node as Node, other as Node)
        })
    }

    /// The record was changed.
    pub(crate) fn changes_to(&mut self, record: Rec) {
        self.record = record;
        for one in &mut self.nodes {
            one.view.current = false;
            if one.view.tries.is_some() {
                one.view.tries = Some(false);
            }
            if let Some(hold) = &mut one.hold {
                hold.current = false;
            }
            if let Some(request) = &mut one.request {
                request.current = false;
            }
            one.late = None;
        }
    }

    /// Numbers only grow; what matters is how they compare.
    pub(crate) fn normal(mut self) -> Self {
        let epoch = self.record.epoch;
        let shift = |record: &mut Rec| {
            record.epoch = (record.epoch + EPOCH).saturating_sub(epoch).max(EPOCH - 2);
        };
        let holds = self.nodes.iter().any(|one| one.hold.is_some_and(|hold| hold.attempts > 0));
        for one in &mut self.nodes {
            if let Some(seen) = &mut one.view.seen {
                shift(seen);
                seen.renewals = 0; // A view does not look at it.
            }
            if let Some(request) = &mut one.request {
                shift(&mut request.record);
                if !request.current {
                    request.record = self.record; // It comes too late, whatever it says.
                    shift(&mut request.record);
                    request.record.renewals = 0;
                }
            }
            if let Some(late) = &mut one.late {
                shift(late);
            }
            // What can stand in the record no more need not be dated.
            let alive = [one.request.filter(|one| one.current).map(|one| one.record), one.late];
            if let Some(hold) = &mut one.hold {
                for (sent, record) in hold.open.iter_mut().flatten() {
                    if *record != self.record && !alive.contains(&Some(*record)) {
                        *sent = OLD;
                    }
                }
            }
            if one.names == Names::Nobody {
                one.since = 0;
            }
            if let Some(hold) = &mut one.hold {
                shift(&mut hold.record);
                hold.open.iter_mut().flatten().for_each(|(_, record)| shift(record));
                let settled = hold.current && hold.open == [None; 3] && one.request.is_none();
                if settled && one.late.is_none() {
                    hold.record.renewals = 0;
                    hold.attempts = 0;
                }
            }
            // The next look begins anew, and who holds it waits for nothing.
            let sees_itself =
                |hold: Hold| one.view.seen.is_some_and(|seen| seen.epoch == hold.record.epoch);
            if !one.view.current || one.hold.is_some_and(sees_itself) {
                one.view.changed = OLD;
            }
        }
        shift(&mut self.record);
        let holds_still =
            self.nodes.iter().any(|one| one.hold.is_some_and(|hold| hold.attempts > 0));
        if !holds || !holds_still {
            self.record.renewals = 0;
        }
        self
    }
}

/// The present one, always.
const EPOCH: u8 = 8;

impl One {
    /// A server that takes writes; a frozen one takes none.
    pub(crate) fn writes(&self) -> bool {
        self.up && !self.paused && self.serves && self.primary
    }

    /// Its node half acts.
    pub(crate) fn acts(&self) -> bool {
        self.up && !self.paused && !self.stalled
    }

    /// The server is stopped hard.
    pub(crate) fn is_fenced(&mut self) {
        if self.primary {
            self.serves = false;
        }
        self.waits = None;
        self.hands_to = None;
        self.hold = None;
        // What was on its way may arrive yet.
        if let Some(request) = self.request.take().filter(|one| one.current) {
            self.late = Some(request.record);
        }
    }
}

impl Hold {
    pub(crate) fn begun(record: Rec, sent: u8) -> Self {
        Hold {
            record,
            current: true,
            good: sent,
            tried: sent,
            open: [None; 3],
            gives_up: false,
            attempts: record.renewals,
        }
    }
}
