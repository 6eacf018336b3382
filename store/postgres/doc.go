// Package postgres is the shared [store.Store] and [store.Journal]: one schema in a
// PostgreSQL database, version 14 or later, that processes on many machines use
// at once. It also gives out the leases of jobs that workers execute together.
//
// # What is trusted
//
// The stored output is the truth, and a lease is a hint. Outputs lie in packs: a row
// has those of one batch, with a SHA-256 over all of it. A pack that fails its sum
// counts as missing and is reported. A chunk is pending if neither a pack nor a failure
// covers it. Pending chunks are computed again from packs and failures when a job seems
// out of work: rows about leases may vanish or hold anything; that costs time, but never
// changes a result.
//
// # Locks
//
// Everything works through a pooler in transaction mode: there are no session locks,
// no temporary tables, and settings are local to a transaction. [Store.Put] takes the
// advisory lock of its action, so that an output is compared with all stored ones.
// A worker that puts outputs for a lease takes that lock in shared mode, and the locks of
// the lanes of the job that the pack lies in, so that the commits of different workers
// wait for the disk together.
//
// # Rights
//
// Workers only call functions, which check that the lease is their own; see schema.sql.
package postgres
