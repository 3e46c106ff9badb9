//! A browser, used as a person uses it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod cdp;
mod page;

pub(crate) use page::Page;
