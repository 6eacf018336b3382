// Package cluster runs jobs on many machines that share a database: [Submit] submits
// a job, [Work] executes leases of any job, and [Collect] makes the result of a job that
// has ended. They share a [postgres.Store], and nothing else.
//
// The stored output is the truth and a lease is a hint: a worker may die, stop or be
// replaced at any time, and others execute the chunks whose outputs it had not put. The
// result and the receipt are the same as after a run by one process.
package cluster
