//! After a failover, the old master becomes the slave of the new one: the transactions that only it
//! has are set aside, and it is cut back to the last transaction that both have.

mod interrupted;
mod passes;
mod set_aside;
