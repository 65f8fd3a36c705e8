//! How often each fault and each event happened.

/// Events of a run or of a campaign.
pub trait Counts: Default + Send {
    fn add(&mut self, other: &Self);

    fn named(&self) -> Vec<(&'static str, u64)>;

    /// What never happened.
    fn zeros(&self) -> Vec<&'static str> {
        self.named().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}

/// Makes the type `Counters` of these names.
#[macro_export]
macro_rules! counters {
    ($($name:ident)*) => {
        /// Events of a run or of a campaign.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(pub $name: u64,)*
        }

        impl $crate::Counts for Counters {
            fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}
