//! What all services have in common.

/// Defines how to reach the service inside, as tower-http's services do.
macro_rules! inner_service_accessors {
    () => {
        /// Returns the service inside.
        pub fn get_ref(&self) -> &S {
            &self.inner
        }

        /// Returns the service inside, mutably.
        pub fn get_mut(&mut self) -> &mut S {
            &mut self.inner
        }

        /// Returns the service inside.
        pub fn into_inner(self) -> S {
            self.inner
        }
    };
}

pub(crate) use inner_service_accessors;
