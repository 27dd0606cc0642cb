//! What a cut must leave of experts that are routed by groups.

use super::{ExpertGroups, GroupScore};

impl ExpertGroups {
    /// Experts that each group must keep at least, if `top_k` experts are selected for each token: as
    /// many as make up the score of a group, and so many that the selected groups have `top_k`.
    #[must_use]
    pub fn least_per_group(&self, top_k: usize) -> usize {
        let scored = match self.score {
            GroupScore::TopTwo => 2,
            GroupScore::Max => 1,
        };
        top_k.div_ceil(self.selected.max(1)).max(scored)
    }

    /// Checks that so many experts of a layer can be routed by these groups.
    ///
    /// # Errors
    /// What is wrong, and what would do.
    pub fn check_count(&self, experts: usize, top_k: usize) -> Result<(), String> {
        let (count, least) = (self.count, self.least_per_group(top_k));
        if !experts.is_multiple_of(count) {
            return Err(format!(
                "{experts} experts are not the same number for each of its {count} groups; keep a \
                 multiple of {count}"
            ));
        }
        if experts / count < least {
            let too_few = match experts / count {
                1 => "1 expert per group is too few".to_owned(),
                each => format!("{each} experts per group are too few"),
            };
            return Err(format!(
                "{too_few}, as {} of its {count} groups are selected for {top_k} experts per token; \
                 keep at least {least} per group, {} in all",
                self.selected,
                least * count
            ));
        }
        Ok(())
    }

    /// Checks that `kept`, ascending indices of `experts` experts, are the same number from each group.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_kept(&self, experts: usize, kept: &[usize]) -> Result<(), String> {
        let size = (experts / self.count).max(1);
        let of = |group: usize| kept.iter().filter(|&&expert| expert / size == group).count();
        let each = kept.len() / self.count;
        match (0..self.count).find(|&group| of(group) != each) {
            None => Ok(()),
            Some(group) => Err(format!(
                "group {group} would keep {} experts of {size}, but each of the {} groups must keep \
                 the same number",
                of(group),
                self.count
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GroupScore;

    const V3: ExpertGroups = ExpertGroups { count: 8, selected: 4, score: GroupScore::TopTwo };

    #[test]
    fn counts() {
        let check = |experts, top_k, expected: Option<&str>| {
            let got = V3.check_count(experts, top_k);
            match expected {
                None => assert_eq!(got, Ok(()), "{experts}"),
                Some(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
            }
        };
        check(256, 8, None);
        check(16, 8, None);
        check(100, 8, Some("keep a multiple of 8"));
        check(8, 8, Some("keep at least 2 per group, 16 in all"));
        check(16, 12, Some("keep at least 3 per group, 24 in all"));
    }

    #[test]
    fn kept() {
        let groups = ExpertGroups { count: 2, selected: 1, score: GroupScore::Max };
        assert_eq!(groups.check_kept(6, &[0, 2, 3, 5]), Ok(()));
        let error = groups.check_kept(6, &[0, 1, 2, 5]).unwrap_err();
        assert!(error.contains("group 0 would keep 3 experts of 3"), "{error}");
    }
}
