package postgres

import (
	"context"
	"crypto/sha256"
	"math"

	"github.com/jackc/pgx/v5"
)

// Call is a call of a fold that workers lease: of aggregate on level 0, of merge above.
type Call struct {
	Level, N    int
	First, Last int // chunks, or calls of the level below; Last is not in it
	Made        bool
	Size        int    // of Output
	Output      []byte // nil if it was not asked for
	Fuel        uint64
	// Of the outputs of the chunks of a call on level 0: the sum of their fuel, and the nodes
	// of their Merkle tree.
	OutputsFuel uint64
	Nodes       []byte

	sum []byte
}

// Sound reports whether the output matches its checksum.
func (c *Call) Sound() bool { return string(c.checksum()) == string(c.sum) }

func (c *Call) checksum() []byte {
	output, nodes := sha256.Sum256(c.Output), sha256.Sum256(c.Nodes)
	sum := sha256.Sum256(append(output[:], nodes[:]...))
	return sum[:]
}

// Calls reads the calls first..last-1 of a level of the fold, -1 for the highest level that
// there is.
func (w *Worker) Calls(ctx context.Context, l Lease, level, first, last int, output bool) ([]Call, error) {
	id, args := (&leased{w.store, w, l}).args(level, first, last, output)
	all, err := rows(ctx, w.store, `select level, n, first, last, made, coalesce(size, 0), output, fuel, outputs_fuel, nodes, sum
		from $.worker_calls($1, $2, $3, $4, $5, $6, $7, $8)`, func(r pgx.Rows) (c Call, err error) {
		var fuel, outputsFuel int64
		err = r.Scan(&c.Level, &c.N, &c.First, &c.Last, &c.Made, &c.Size, &c.Output, &fuel, &outputsFuel, &c.Nodes, &c.sum)
		c.Fuel, c.OutputsFuel = uint64(fuel), uint64(outputsFuel)
		return c, err
	}, args...)
	return all, w.answered(ctx, id, err)
}

// All is the last of all calls, for [Worker.Calls].
const All = math.MaxInt32

// Plan makes the calls of a level of the fold, and ends the lease on the fold. spans has for
// each call its First and Last.
func (w *Worker) Plan(ctx context.Context, l Lease, level int, spans [][2]int) error {
	firsts, lasts := make([]int64, len(spans)), make([]int64, len(spans))
	for i, span := range spans {
		firsts[i], lasts[i] = int64(span[0]), int64(span[1])
	}
	var none any
	return w.call(ctx, "select $.worker_plan($1, $2, $3, $4, $5, $6, $7)::text", []any{l.Slot, l.Key, level, firsts, lasts}, &none)
}

// Called keeps the results of leased calls of one level, unless there are some. done is the
// first call of the lease that is not among them or earlier ones.
func (w *Worker) Called(ctx context.Context, l Lease, level int, calls []Call, done int) error {
	if len(calls) == 0 {
		return nil
	}
	var ns []int32
	var fuels, outputsFuels []int64
	var outputs, nodes, sums [][]byte
	for i := range calls {
		c := &calls[i]
		ns, fuels, outputsFuels = append(ns, int32(c.N)), append(fuels, int64(c.Fuel)), append(outputsFuels, int64(c.OutputsFuel))
		outputs, nodes, sums = append(outputs, c.Output), append(nodes, c.Nodes), append(sums, c.checksum())
	}
	var none any
	return w.call(ctx, "select $.worker_called($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)::text",
		[]any{l.Slot, l.Key, level, ns, outputs, fuels, outputsFuels, nodes, sums, done}, &none)
}

// Unplan drops the calls of the fold, because outputs that they need are missing: the fold is
// planned again once there are all outputs.
func (w *Worker) Unplan(ctx context.Context, l Lease) error {
	var none any
	return w.call(ctx, "select $.worker_unplan($1, $2, $3, $4)::text", []any{l.Slot, l.Key}, &none)
}
