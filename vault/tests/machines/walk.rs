//! Walks every reachable state of a model.

use std::collections::{BTreeMap, VecDeque};

/// All states that can be reached, and what each leads to.
pub(crate) struct Graph<M> {
    states: BTreeMap<M, usize>,
    leads_to: Vec<Vec<usize>>,
}

impl<M: Clone + Ord> Graph<M> {
    /// Walks from a state; a model that turns out to be endless ends the test.
    pub(crate) fn walk(start: M, successors: impl Fn(&M) -> Vec<M>, most: usize) -> Self {
        let mut graph = Self {
            states: BTreeMap::from([(start.clone(), 0)]),
            leads_to: vec![Vec::new()],
        };
        let mut queue = VecDeque::from([(0, start)]);
        while let Some((from, state)) = queue.pop_front() {
            for next in successors(&state) {
                let fresh = graph.states.len();
                let to = *graph.states.entry(next.clone()).or_insert(fresh);
                if to == fresh {
                    assert!(fresh < most, "more than {most} states");
                    graph.leads_to.push(Vec::new());
                    queue.push_back((to, next));
                }
                graph.leads_to[from].push(to);
            }
        }
        graph
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &M> {
        self.states.keys()
    }

    /// A state from which none that satisfies `goal` can be reached.
    pub(crate) fn cannot_reach(&self, goal: impl Fn(&M) -> bool) -> Option<&M> {
        let mut comes_from = vec![Vec::new(); self.leads_to.len()];
        for (from, next) in self.leads_to.iter().enumerate() {
            for to in next {
                comes_from[*to].push(from);
            }
        }
        let mut reaches = vec![false; self.leads_to.len()];
        let mut queue: Vec<usize> = self
            .states
            .iter()
            .filter(|(state, _)| goal(state))
            .map(|(_, at)| *at)
            .collect();
        while let Some(at) = queue.pop() {
            if !std::mem::replace(&mut reaches[at], true) {
                queue.extend(&comes_from[at]);
            }
        }
        self.states
            .iter()
            .find(|(_, at)| !reaches[**at])
            .map(|(state, _)| state)
    }
}
