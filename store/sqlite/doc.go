// Package sqlite is the durable [store.Store]: one SQLite file in a directory.
// Other processes can read and write it at the same time, and users can open it
// with the tools they have (only to read: other tools write no page checksums).
//
// When Put returns nil, its outputs are committed and synced (WAL,
// synchronous=FULL); Puts of several goroutines share a commit. Each output has a
// checksum over its action, key, fuel and bytes. An output that does not match its
// checksum is reported, counts as missing, and can be put again. A file that
// cannot be read as a whole is set aside, and its outputs and jobs are copied into a
// new one; the only store that is rejected is one that a newer version wrote.
//
// # The driver
//
// The driver is github.com/ncruces/go-sqlite3 (MIT): SQLite compiled to WebAssembly
// and from there to Go. Writing a million outputs, each in its own row as in the
// first layouts, took, on a busy machine with two cores, in microseconds of wall
// clock (of user CPU) per row:
//
//	                           1,000 a commit   10,000 a commit
//	modernc.org/sqlite, BSD-3      4.1 (3.0)        3.8 (3.2)    through database/sql
//	zombiezen.com/go/sqlite, ISC   3.6 (2.4)        2.7 (2.0)    on modernc's SQLite
//	ncruces/go-sqlite3, MIT        3.5 (2.4)        2.9 (2.3)
//
// The last two are equal. ncruces implements its files in Go, so syncs can be
// counted and every call can be made to fail in tests. It verifies a checksum on
// every page; a bug in SQLite cannot reach beyond the memory of its module; and its
// only dependencies are golang.org/x/sys and two modules of its author, while the
// others need nine.
//
// # Layout of outputs
//
// Outputs are stored in id order, so that a job that runs from start to end
// appends. They are stored in packs: a row holds as many outputs as fill a page, 42
// if they have a few bytes each, because SQLite's time is spent per row. A million
// tiny chunks take 3.1 s with packs and 5.0 s with a row for each output (and 1.9 s
// without a store). For other tools, the view outputs has a row for each output.
//
// The identity of an output is its chunk's digest, not its order. A B-tree of
// digests, even of 8 bytes each, made a row 8 times as expensive (46 us against
// 5.3 under the same load), since each commit writes a page for every few of its
// rows. So each commit adds a batch: the first 6 bytes of its chunks' digests, with
// their orders, spread over pages by these bytes. To look up a chunk that is new or
// stored under another order, one page of each batch is read. With the hundred
// batches of a job of a million chunks that takes about 0.5 ms, however many
// outputs there are. Small batches are merged, so there are few.
//
// After many look-ups, all entries are read, at 50 ns each, into a filter with 44
// bits of each digest (about 7 bytes a chunk): a chunk that is not in the filter is
// new, and needs no look-up. If many chunks are found under other orders, as after
// chunks were inserted in front of others, all batches are merged.
//
// # Jobs
//
// The commit that stores outputs also records that the run finished them: a span of
// consecutive chunks is a row with their digests, which takes about 32 bytes a
// chunk and 7 % of the time.
//
// When a file is set aside, the records of its jobs are copied too. They have no
// checksums of their own, so only rows are copied that SQLite reads from pages that
// match theirs, by the table and by an index, and whose values are within their bounds.
// A job is copied with all its ids and runs, or not at all; a span or an attempt that
// is lost is left out, and its chunks are pending until the next run finds their
// outputs. Jobs with a loss are reported to Options.DamagedJob.
package sqlite
