package flow

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// journal keeps the results that do not follow from data, in the store of the
// outputs: under actions of the run's own, by keys that name an item and its step.
type journal struct {
	store      store.Store
	run        RunID
	generation uint64 // of this process: failures count in one only
	roots      Input
}

// RunID is the digest of a run's name.
type RunID [sha256.Size]byte

// IDOf returns the id of the run with a name.
func IDOf(run string) RunID { return sha256.Sum256([]byte("wasm-jobs flow run 1\n" + run)) }

// The kinds of records.
const (
	kindEffect  = "effects"
	kindFailure = "failures" // of steps, not routed; of one generation
	kindRoute   = "routes"   // failures that were routed
	kindDue     = "due"      // when a wait ends
	kindIntent  = "intents"  // an effect may have been made
	kindRedrive = "redrives"
)

var kinds = []string{kindEffect, kindFailure, kindRoute, kindDue, kindIntent, kindRedrive}

// action returns the key of a kind of records.
func (id RunID) action(kind string) store.Action {
	return sha256.Sum256(fmt.Appendf(nil, "wasm-jobs flow journal 1\n%s\n%x", kind, id[:]))
}

// actions returns the actions of all records of a run.
func (id RunID) actions() (all []store.Action) {
	for _, kind := range kinds {
		all = append(all, id.action(kind))
	}
	return all
}

// effectKey names one visit of an item to a state. It is the key of the effect that
// is made there, the same for every attempt. If the effect was made for other data
// before, the key depends on the data too.
func (j *journal) effectKey(it *item, s *state) store.Digest {
	h := sha256.New()
	fmt.Fprintf(h, "wasm-jobs flow effect 1\n%x\n%q\n%q\n%d\n", j.run[:], idText(it.id(j.roots)), s.Name, it.memory().visits[s.index])
	if it.stale { // another effect than the one that was made
		data := digestOf(it.data)
		h.Write(data[:])
	}
	return store.Digest(h.Sum(nil))
}

// stepKey names one step of an item, with its data and its executor.
func (j *journal) stepKey(it *item, s *state, generation uint64) store.Digest {
	h := sha256.New()
	data := digestOf(it.data)
	fmt.Fprintf(h, "wasm-jobs flow step 1\n%d\n%q\n%q\n%d\n%x\n%x\n", generation, idText(it.id(j.roots)), s.Name, it.steps, s.action[:], data[:])
	return store.Digest(h.Sum(nil))
}

// failure is a step that failed for good, as it is recorded.
type failure struct {
	abi.Failure
	Attempts int `json:"attempts"`
}

// failedStep is a failure to be recorded.
type failedStep struct {
	it *item
	s  *state
	failure
}

// keepFailures records steps that failed. Routed failures have a kind of their own.
func (j *journal) keepFailures(ctx context.Context, failed []failedStep) error {
	var routed, final []store.Record
	for i := range failed {
		f := &failed[i]
		f.Message = strings.ToValidUTF8(f.Message, "?") // as it can be recorded, because a join makes data of it
		b, err := json.Marshal(f.failure)
		if err != nil {
			return err
		}
		r := store.Record{Key: store.Key{Order: f.it.order(j.roots)}, Value: store.Value{Output: b}}
		if _, ok := f.s.routeOf(f.Class); ok {
			r.Key.Chunk = j.stepKey(f.it, f.s, 0)
			routed = append(routed, r)
		} else {
			r.Key.Chunk = j.stepKey(f.it, f.s, j.generation)
			final = append(final, r)
		}
	}
	return errors.Join(j.put(ctx, kindRoute, routed), j.put(ctx, kindFailure, final))
}

// put keeps records. The first record under a key counts; a later one is ignored.
func (j *journal) put(ctx context.Context, kind string, records []store.Record) error {
	if len(records) == 0 {
		return nil
	}
	err := j.store.Put(ctx, j.run.action(kind), records)
	if _, conflict := errors.AsType[*store.ConflictError](err); conflict {
		return nil
	}
	return err
}

// order returns the sort key of an item's records in the store, the same as for a
// chunk with this id.
func (n *name) order(in Input) []byte { return n.id(in).AppendOrderKey(nil) }

// lookFailures handles the items whose step is recorded as failed, and returns the
// others.
func (j *journal) lookFailures(ctx context.Context, m *machine, s *state, items []*item) (rest []*item, err error) {
	if len(s.on) > 0 {
		if items, err = j.lookFailed(ctx, m, s, items, kindRoute, 0); err != nil {
			return nil, err
		}
	}
	return j.lookFailed(ctx, m, s, items, kindFailure, j.generation)
}

func (j *journal) lookFailed(ctx context.Context, m *machine, s *state, items []*item, kind string, generation uint64) (rest []*item, err error) {
	keys := make([]store.Key, len(items))
	for i, it := range items {
		keys[i] = store.Key{Chunk: j.stepKey(it, s, generation), Order: it.order(j.roots)}
	}
	found := make([]*failure, len(items))
	err = j.store.Get(ctx, j.run.action(kind), keys, func(i int, v store.Value) error {
		f := &failure{}
		if json.Unmarshal(v.Output, f) == nil { // a damaged record counts as missing
			found[i] = f
		}
		return nil
	})
	for i, it := range items {
		if found[i] == nil {
			rest = append(rest, it)
			continue
		}
		m.giveUp(it, &found[i].Failure)
	}
	return rest, err
}

// appendEffect appends the input of an effect: an array of the key and the data.
func appendEffect(dst []byte, key store.Digest, data []byte) []byte {
	dst = abi.AppendHead(dst, abi.MajorArray, 2)
	dst = append(abi.AppendHead(dst, abi.MajorBytes, uint64(len(key))), key[:]...)
	return append(dst, data...)
}

const effectHead = 1 + 2 + sha256.Size

// Effect reads the input of an effect's instance: the key of the step, which is the
// same for every attempt, and the data.
func Effect(input []byte) (key [sha256.Size]byte, data []byte) {
	return [sha256.Size]byte(input[3:effectHead]), input[effectHead:]
}
