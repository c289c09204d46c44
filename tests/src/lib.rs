//! The harness of everything that needs processes: engines, containers, Envoy, tidegate, clients and load. It starts real
//! things and observes them from outside; it knows nothing of tidegate's insides. What it starts it removes: on drop, also
//! after a panic, and what a killed test run left behind is swept by the next one.

pub mod poll;
pub mod ports;
pub mod run;

pub mod client;
pub mod load;

pub mod process;
pub mod namespace;

pub mod envoy;
pub mod tidegate;

pub mod engine;
pub mod private_engine;
pub mod disk;
pub mod docker_proxy;

pub mod edge;
pub mod deploys;

pub mod demo;
pub mod bench;
