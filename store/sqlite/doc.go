// Package sqlite is the durable [store.Store]: one SQLite file in a directory,
// which other processes read and write at the same time and users open with
// the tools they have (to look: what other tools write has no page checksums).
//
// When Put returns nil, its outputs are committed and synced (WAL,
// synchronous=FULL); Puts of several goroutines share a commit. Each output
// carries a checksum over everything it is: one that fails it counts as
// missing, is named, and can be put again. A file that is beyond reading as a
// whole is set aside, and its outputs are carried over into a new one; the only
// file that is refused is one that a newer version wrote.
//
// # The driver
//
// It is github.com/ncruces/go-sqlite3 (MIT), SQLite compiled to WebAssembly and
// from there to Go. A million outputs, each in a row of its own as they were in
// the first layouts, took, on a busy machine with two cores, in microseconds of
// wall clock (of user CPU) a row:
//
//	                           1,000 a commit   10,000 a commit
//	modernc.org/sqlite, BSD-3      4.1 (3.0)        3.8 (3.2)    through database/sql
//	zombiezen.com/go/sqlite, ISC   3.6 (2.4)        2.7 (2.0)    on modernc's SQLite
//	ncruces/go-sqlite3, MIT        3.5 (2.4)        2.9 (2.3)
//
// The last two are equal. ncruces has its files in Go, so that syncs are
// counted and every call can be made to fail; it verifies a checksum on every
// page; a bug in SQLite ends at the bounds of its memory; and its only
// dependencies are golang.org/x/sys and two modules of its author, where the
// others bring nine.
//
// # Where outputs lie
//
// In id order, so that a job that runs from start to end appends, and in packs: a
// row has as many outputs as fill a page, 42 of a few bytes, since it is by the
// row that SQLite takes its time. A million tiny chunks take 3.1 s with packs
// and 5.0 s with a row for each output (and 1.9 s without a store). Who opens
// the file with other tools has a view, outputs, with a row for each. Yet a chunk's
// digest, not its order, is an output's identity. An index of digests, even of
// 8 bytes, made a row 8 times as dear (46 us against 5.3 under the same load),
// since each commit writes a page for every few of its rows. So each commit
// appends the first 8 bytes of its chunks' digests, with their orders, to a log
// in the same file. A process keeps 44 bits of each digest of an action it
// works on (some 7 bytes a chunk): what is not among them is new, and needs no
// look at the file. Only where chunks are found under another order, as after
// chunks were put in front of others, is the log sorted into an index, in one
// go; for a few of them, which may be mistaken ones, it is read through.
//
// # Jobs
//
// What a run finished is noted in the commit of the outputs: a span of
// neighbouring chunks is a row with their digests, some 32 bytes a chunk and 7 %
// of the time. Records of jobs are lost with a file that is set aside; outputs
// are carried over, and the next run of the job records it again.
package sqlite
